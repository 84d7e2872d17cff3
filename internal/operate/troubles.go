package operate

import (
	"fmt"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/doctor"
	"github.com/raftvip/raftvip/internal/owner"
	"github.com/raftvip/raftvip/vip"
)

// takeWarnings tell of copies that others have configured on a node and that are
// harmless, and of what keeps addresses from being up there. What concerns this node's
// own addresses is said with them.
func takeWarnings(n api.Node, here string) (w []string) {
	for _, f := range n.Foreign {
		if n.Name != here && !f.Answers() {
			w = append(w, fmt.Sprintf("%s: %s", n.Name, f.Why))
		}
	}
	if n.Missing > 0 && (n.Owner || n.Name == here || len(n.Foreign) == 0) {
		verb := "is not preferred as owner: it"
		if n.Owner {
			verb = "owns, but"
		}
		w = append(w, fmt.Sprintf("%s %s %s", n.Name, verb, n.MissingWhy))
	}
	return w
}

// maxTroubles bounds what a node tells a doctor of its addresses.
const maxTroubles = 32

// addressTroubles are what is wrong with the addresses on this node.
func addressTroubles(st vip.Status, owns bool) []doctor.Trouble {
	var out []doctor.Trouble
	add := func(a vip.AddressStatus, serious bool, do, format string, args ...any) {
		out = append(out, doctor.Trouble{Interface: a.Link, Serious: serious, Seen: doctor.Clean(fmt.Sprintf(format, args...)), Do: do})
	}
	for _, a := range st.Addresses {
		remove := fmt.Sprintf("ip address del %s dev %s", a.Foreign, a.Link)
		switch ip := a.Prefix.Addr(); {
		case a.DeleteFailures > 0:
			add(a, true, "see the daemon's log; the guard keeps it silent", "%s cannot be removed: %v", ip, a.Err)
		case a.Foreign.IsValid() && !a.Silent:
			add(a, true, remove, "%s was configured by someone else, and the node answers for it whoever owns it: %s", a.Foreign, a.Why)
		case a.Foreign.IsValid() && a.Mute != "":
			add(a, true, remove, "%s was configured by someone else, and %s", a.Foreign, a.Mute)
		case a.Foreign.IsValid():
			add(a, false, remove, "%s was configured by someone else; the guard lets it answer only while the node owns it", a.Foreign)
		case !owns || !a.Wanted || a.State == vip.StateWaiting:
		case a.Contested:
			add(a, true, "find what removes it (NetworkManager, networkd, a script) and keep it from that", "%s: %s", ip, a.Why)
		case owner.Hindrance(a) != "" && !a.Up():
			add(a, true, "see raftvip status", "%s is not up: %s", ip, owner.Hindrance(a))
		case owner.Hindrance(a) != "":
			add(a, true, "see raftvip status", "%s cannot be announced: %s", ip, owner.Hindrance(a))
		}
	}
	return out[:min(len(out), maxTroubles)]
}
