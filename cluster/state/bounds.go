package state

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/raftvip/raftvip/internal/vipaddr"
)

// Bounds of the replicated state. They hold in the state machine, from feature level 2
// on, whatever a member proposes: what one can grow without end all have to keep.
const (
	// MaxGroupName is the longest name of a group in bytes: one length byte precedes it
	// on the wire.
	MaxGroupName = 255
	// MaxNodes is far above what Raft is good for.
	MaxNodes = 64
	// MaxRemoved is how many removed nodes are told why they are refused; the oldest
	// are forgotten, and then are strangers.
	MaxRemoved = 256
	// MaxInstances and MaxAddresses are those of all members together.
	MaxInstances = 1024
	MaxAddresses = 4096
	// MaxTokens is how many join tokens there may be, MaxTokenUses for how many nodes
	// one may be good.
	MaxTokens    = 256
	MaxTokenUses = 100
	// MaxInstanceName and MaxText bound a name and a text of the history in bytes.
	MaxInstanceName = 255
	MaxText         = 1000
	// MinHeartbeat and MaxHeartbeat bound the failure detection time. An operator may
	// ask for 10 s at most; a guard may need more.
	MinHeartbeat = 20 * time.Millisecond
	MaxHeartbeat = time.Minute
)

// bounded tells whether the bounds hold in this state; a log from before them says what
// it said.
func (s *State) bounded() bool { return s.Level >= 2 }

// printable replaces what a terminal would act on, and cuts a text to so many bytes.
func printable(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	if len(text) <= most {
		return text
	}
	const more = "..."
	cut := most - len(more)
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + more
}

// checkText refuses a name that is too long or does something to a terminal.
func checkText(what, text string, most int) error {
	if len(text) > most || printable(text, most) != text {
		return Refuse(CodeBadRequest, "", "%s %q: must be at most %d bytes of printable text", what, printable(text, 80), most)
	}
	return nil
}

// checkInstance tells whether an instance can be one.
func checkInstance(in Instance) error {
	if in.Name == "" {
		return Refuse(CodeBadRequest, "", "an instance has no name")
	}
	if err := checkText("instance", in.Name, MaxInstanceName); err != nil {
		return err
	}
	if err := checkText("group", in.Group, MaxGroupName); err != nil {
		return err
	}
	if in.VRRP != "" && in.VRRP != "hybrid" {
		return Refuse(CodeBadRequest, "", "instance %s: unknown vrrp mode %q", in.Name, printable(in.VRRP, 80))
	}
	if in.VirtualRouterID < 0 || in.VirtualRouterID > 255 {
		return Refuse(CodeBadRequest, "", "instance %s: virtual_router_id %d: must be 0 to 255", in.Name, in.VirtualRouterID)
	}
	if err := checkGARP(in.GARP); err != nil {
		return Refuse(CodeBadRequest, "", "instance %s: %s", in.Name, err)
	}
	for _, a := range in.Addresses {
		if err := checkVIP(a); err != nil {
			return err
		}
	}
	return nil
}

// checkGARP bounds the announcements as a file does (seconds to 4294, packets to 10000).
func checkGARP(g GARP) error {
	const longest, most = 4294 * time.Second, 10000
	for _, d := range []time.Duration{g.MasterDelay, g.MasterRefresh, g.Interval, g.GNAInterval} {
		if d < 0 || d > longest+time.Second {
			return fmt.Errorf("announcements each %s: must be 0 to %s", d, longest)
		}
	}
	for _, k := range []int{g.MasterRepeat, g.MasterRefreshRepeat} {
		if k < 0 || k > most {
			return fmt.Errorf("%d announcements: must be 0 to %d", k, most)
		}
	}
	return nil
}

// checkVIP tells whether an address can be a virtual one. Whether it needs an interface
// to be named is known where it is added: an instance may name one for all.
func checkVIP(a Address) error {
	err := vipaddr.Check(a.Prefix)
	if err == nil && a.Dev != "" {
		err = vipaddr.CheckInterface(a.Dev)
	}
	if err != nil {
		return Refuse(CodeBadRequest, "", "virtual address %s: %s", printable(a.Prefix.String(), 80), err)
	}
	if a.Brd != "" && a.Brd != "+" && a.Brd != "-" {
		if brd, err := netip.ParseAddr(a.Brd); err != nil || !brd.Is4() {
			return Refuse(CodeBadRequest, "", "virtual address %s: brd %q: must be an IPv4 address, + or -", a.Prefix, printable(a.Brd, 80))
		}
	}
	for what, text := range map[string]string{"scope": a.Scope, "label": a.Label} {
		if err := checkText(what, text, 15); err != nil {
			return err
		}
	}
	return nil
}

// checkInstances tells whether all instances together are within bounds.
func checkInstances(all []Instance) error {
	if len(all) > MaxInstances {
		return Refuse(CodeBadRequest, "", "%d instances: at most %d are allowed", len(all), MaxInstances)
	}
	addresses := 0
	for _, in := range all {
		if err := checkInstance(in); err != nil {
			return err
		}
		addresses += len(in.Addresses)
	}
	if addresses > MaxAddresses {
		return Refuse(CodeBadRequest, "", "%d virtual addresses: at most %d are allowed", addresses, MaxAddresses)
	}
	return nil
}

func checkHeartbeat(d time.Duration) error {
	if d < MinHeartbeat || d > MaxHeartbeat {
		return Refuse(CodeBadRequest, "", "heartbeat_timeout %s: must be %s to %s", d, MinHeartbeat, MaxHeartbeat)
	}
	return nil
}

// checkToken tells whether a record can be that of a token.
func (s *State) checkToken(t TokenRecord) error {
	if t.ID == "" || len(t.ID) > MaxTokenID || len(t.Hash) > MaxProof || checkText("token", t.ID+t.Hash, MaxTokenID+MaxProof) != nil {
		return Refuse(CodeBadRequest, "", "token %q is none", printable(t.ID, 80))
	}
	if t.Uses < 1 || t.Uses > MaxTokenUses {
		return Refuse(CodeBadRequest, "", "token %s: must be good for 1 to %d nodes", t.ID, MaxTokenUses)
	}
	if _, known := s.Tokens[t.ID]; !known && len(s.Tokens) >= MaxTokens {
		return Refuse(CodeBadRequest, `revoke some first, see "raftvip token list"`, "there are %d join tokens, and no more are allowed", len(s.Tokens))
	}
	return nil
}

// forgetRemoved drops the oldest of the removed nodes that are too many.
func (s *State) forgetRemoved() {
	if len(s.Removed) <= MaxRemoved {
		return
	}
	ids := slices.SortedFunc(maps.Keys(s.Removed), func(a, b string) int {
		return cmp.Or(s.Removed[a].At.Compare(s.Removed[b].At), cmp.Compare(a, b))
	})
	for _, id := range ids[:len(ids)-MaxRemoved] {
		delete(s.Removed, id)
	}
}

const (
	MaxTokenID = 64
	MaxProof   = 128
)
