package vrrp

import (
	"fmt"
	"strings"

	"github.com/raftvip/raftvip/internal/check"
)

// hybridInputs are everything that this node's part in one hybrid instance follows
// from.
type hybridInputs struct {
	// own: this node owns the group by Raft, with a valid lease.
	own bool
	// successor: another member is known to lead the group.
	successor bool
	// speaks: the cluster has the instance speak VRRP. Otherwise Raft alone decides.
	speaks bool
	// started: vrrp_startup_delay is over.
	started bool
	// fault says why the instance's virtual router cannot work here, or "".
	fault string
	// master: its VRRP machine is master. other describes the master it respects.
	master bool
	other  string
}

// A hybridDecision is what to do about one hybrid instance.
type hybridDecision struct {
	// entitled: the virtual router may speak. When it may not any more, handedOver
	// says that a member goes on speaking; otherwise the peers are told that the
	// cluster leaves.
	entitled   bool
	handedOver bool
	// up: the addresses are to answer. It needs Raft and VRRP.
	up  bool
	why string
}

// decideHybrid says what this node does in one instance. Raft comes first: without
// its lease nothing that VRRP says puts an address up.
func decideHybrid(in hybridInputs) hybridDecision {
	switch {
	case !in.own:
		return hybridDecision{handedOver: in.successor, why: "another node is the Raft owner, or none is"}
	case !in.speaks:
		return hybridDecision{up: true, why: "Raft owner"}
	case in.fault != "":
		return hybridDecision{why: in.fault}
	case !in.started:
		return hybridDecision{why: "waiting for vrrp_startup_delay"}
	case !in.master && in.other != "":
		return hybridDecision{entitled: true, why: "Raft owner, ready to take over from VRRP master " + in.other}
	case !in.master:
		return hybridDecision{entitled: true, why: "Raft owner, listening for a VRRP master before taking over"}
	}
	return hybridDecision{entitled: true, up: true, why: "Raft owner and VRRP master"}
}

// plainInputs are everything that an instance with "vrrp only" follows from.
type plainInputs struct {
	// started: vrrp_startup_delay is over.
	started bool
	// claimed says that the cluster has the instance or one of its addresses, or "".
	claimed string
	check   check.InstanceReport
	// faults are those that no check knows of.
	faults []string
	master bool
}

// A plainDecision is what to do about an instance with "vrrp only".
type plainDecision struct {
	// runs: the virtual router takes part; otherwise it is in Initialize
	// (keepalived's FAULT), and a master that gets there says that it leaves.
	runs bool
	up   bool
	// state is keepalived's word for it.
	state string
	why   string
}

// decidePlain says what to do with an instance that VRRP alone decides about.
// Promise P1 comes first here too: what the cluster has is the cluster's.
func decidePlain(in plainInputs) plainDecision {
	switch faults := append(in.check.Faults[:len(in.check.Faults):len(in.check.Faults)], in.faults...); {
	case in.claimed != "":
		return plainDecision{state: "fault", why: in.claimed}
	case len(faults) > 0:
		return plainDecision{state: "fault", why: strings.Join(faults, "; ")}
	case !in.started:
		return plainDecision{state: "initialize", why: "waiting for vrrp_startup_delay"}
	case !in.check.Ready:
		return plainDecision{state: "initialize", why: "waiting for the first result of each check"}
	case in.master:
		return plainDecision{runs: true, up: true, state: "master", why: fmt.Sprintf("VRRP master with priority %d", in.check.Effective)}
	}
	return plainDecision{runs: true, state: "backup"}
}
