package vip_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vip/viptest"
)

// TestAnnouncedUntilHeard: on a silent link the burst is repeated with growing
// intervals; when something is heard at last everything is announced anew.
func TestAnnouncedUntilHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hearer := &viptest.Hearer{}
		b := newBench(t, func(_ *bench, c *vip.KeeperConfig) { c.Hearing = hearer })
		const eth0 = 2
		seconds := func() (at []string) {
			last := b.h.Status().Announced4
			for s := range 70 {
				synctest.Wait()
				if n := b.h.Status().Announced4; n != last {
					at, last = append(at, fmt.Sprintf("%d:%d", s, n-last)), n
				}
				time.Sleep(time.Second)
			}
			return at
		}
		expect := func(what string, got []string, want ...string) {
			t.Helper()
			if !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		w := b.wanted(true, 1, "10.0.0.5/24")
		w.Schedule = vip.Schedule{Repeat: 3, Delay: 5 * time.Second}
		b.gate.Open(1)
		b.gate.Renew(1, b.now()+time.Hour)
		b.h.Set(w)
		expect("silent", seconds(), "0:3", "1:1", "2:1", "4:1", "5:3", "8:1", "16:1", "32:1")

		// The port forwards at last.
		hearer.Hear(eth0)
		expect("heard", seconds(), "0:3", "5:3")
		b.h.Announce("a doubt")
		expect("a doubt where others are heard", seconds(), "0:3", "5:3")

		// The link flaps; after 9 s something is heard.
		b.host.ChangeLink("eth0", func(l *vip.Link) { l.Running = false })
		synctest.Wait()
		b.host.ChangeLink("eth0", func(l *vip.Link) { l.Running = true })
		time.AfterFunc(9*time.Second+time.Millisecond, func() { hearer.Hear(eth0) })
		expect("flap", seconds(), "0:3", "1:1", "2:1", "4:1", "5:3", "8:1", "10:3", "15:3")
	})
}

// TestEchoesAreBounded: what a thousand addresses send on a silent link.
func TestEchoesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hearer := &viptest.Hearer{}
		b := newBench(t, func(_ *bench, c *vip.KeeperConfig) { c.Hearing = hearer })
		var addrs []string
		for i := range 1000 {
			addrs = append(addrs, fmt.Sprintf("10.0.%d.%d/32", 1+i/200, 1+i%200))
		}
		w := b.wanted(true, 1, addrs...)
		w.Schedule = vip.DefaultSchedule()
		b.gate.Open(1)
		b.gate.Renew(1, b.now()+time.Hour)
		b.h.Set(w)
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if n := b.h.Status().Announced4; n != 1000*(5+5+6) {
			t.Errorf("%d announcements", n)
		}
	})
}
