package vip

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// watch keeps the mirror up to date until ctx ends.
func (k *Keeper) watch(ctx context.Context) {
	for {
		err := k.cfg.Host.Watch(ctx, k.observe)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = fmt.Errorf("watch addresses: ended without a reason")
		}
		k.setErr("watching addresses", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// observe takes over one event of the kernel.
func (k *Keeper) observe(ev Event) {
	if ev.Kind == Snapshot {
		k.setErr("watching addresses", nil)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if ev.Kind == Snapshot {
		next := newMirror(ev.Links)
		if k.mirror != nil {
			for _, i := range k.mirror.doubts(next) {
				k.running(i)
			}
		}
		k.mirror = next
		// It may be older than what we did while it was taken. Before that is called a
		// loss, the loop looks for itself, when it is doing nothing else.
		k.behind = slices.ContainsFunc(k.holdings, func(h *Holding) bool {
			return slices.ContainsFunc(h.entries, func(e *entry) bool { return e.placed && !next.has(e.at.link, e.at.prefix) })
		})
		clear(k.deletes)
		k.reloading, k.missed = false, nil
		k.wake()
		return
	}
	if k.mirror == nil {
		return
	}
	p := place{link: ev.Link.Index, prefix: ev.Address.Prefix}
	if ev.Kind == AddressAdded || ev.Kind == AddressRemoved {
		// Events lag behind what we do ourselves: what comes before the event of our
		// own deletion is older than the mirror.
		if n := k.deletes[p]; n > 0 {
			if ev.Kind == AddressRemoved {
				if n--; n == 0 {
					delete(k.deletes, p)
				} else {
					k.deletes[p] = n
				}
			}
			return
		}
	}
	if k.reloading {
		k.missed = append(k.missed, ev)
	}
	changed, doubt := k.mirror.apply(ev)
	if doubt {
		k.running(ev.Link.Index)
	}
	if ev.Kind == AddressRemoved && k.adding {
		k.overtaken = true
	}
	if ev.Kind == AddressRemoved && changed {
		for e := k.byIP[p.prefix.Addr()]; e != nil; e = e.next {
			if e.serves() && e.at == p {
				k.lose(e)
			}
		}
	}
	if changed || doubt {
		k.wake()
	}
}

// running notes that a link has begun to run, or has another hardware address. It is
// called with mu held.
func (k *Keeper) running(link int) {
	k.doubt[link] = true
	if k.cfg.Hearing != nil {
		k.cfg.Hearing.Forget(link)
	}
}

// lose notes that the address of e has gone from the kernel without our doing. It
// is called with mu held.
func (k *Keeper) lose(e *entry) {
	borrowed := e.borrowed
	e.placed, e.borrowed = false, false
	if !e.h.wanted.Own || !e.listed {
		return
	}
	e.lost = true
	e.lostWhy = "removed by someone else, or expired"
	if borrowed {
		e.lostWhy = "someone else's copy, which served, was removed"
	}
	if l := k.mirror.links[e.at.link]; l == nil || !l.Up {
		e.lostWhy = "lost with its link"
	}
	told, began := true, false
	if l := k.mirror.links[e.at.link]; l != nil && l.Up {
		told, began = e.tug.removed(k.now())
	}
	if told {
		e.h.log.Warn("address has gone from the kernel", "vip", e.ip(), "link", e.want.Link, "reason", e.lostWhy)
	}
	if began {
		e.h.log.Error("ADDRESS IS REMOVED AGAIN AND AGAIN", "vip", e.ip(), "link", e.want.Link, "reason", e.tug.why())
	}
}
