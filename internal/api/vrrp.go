package api

import (
	"net/netip"

	"github.com/raftvip/raftvip/internal/check"
)

// VirtualRouter is one instance that speaks VRRP, as this node sees it.
type VirtualRouter struct {
	Instance string `json:"instance"`
	// Mode is "hybrid" or "only".
	Mode string `json:"mode"`
	VRID int    `json:"virtual_router_id"`
	// State is "master", "backup", "initialize" or "fault", Why says why.
	State string `json:"state"`
	Why   string `json:"why,omitempty"`
	// Up: the addresses are to answer here.
	Up bool `json:"up"`
	// Entitled: this node may speak. In a hybrid cluster only the Raft owner may.
	Entitled  bool       `json:"entitled"`
	Priority  int        `json:"priority"`
	Version   int        `json:"version"`
	AdvertInt float64    `json:"advert_int_seconds"`
	Interface string     `json:"interface"`
	VMAC      string     `json:"vmac,omitempty"`
	Source    netip.Addr `json:"source,omitzero"`
	// Destinations are the group or the peers.
	Destinations []netip.Addr `json:"destinations,omitempty"`
	// Master is another router that is master.
	Master *VRRPMaster `json:"master,omitempty"`
	// Sent and NotSent are advertisements to a destination.
	Sent    uint64 `json:"sent"`
	NotSent uint64 `json:"not_sent"`
	// Received are all packets of this virtual router, Dropped those without effect,
	// by reason.
	Received uint64            `json:"received"`
	Dropped  map[string]uint64 `json:"dropped,omitempty"`
	// Problems are what other routers send that does not fit, newest first.
	Problems []VRRPProblem `json:"problems,omitempty"`
	// Guarantee says whether promise P1 holds.
	Guarantee string `json:"guarantee"`
	// Check is how the priority comes about.
	Check *check.InstanceReport `json:"check,omitempty"`
	// Addresses are those of an instance with "vrrp only"; the others are with their
	// group.
	Addresses []Address `json:"addresses,omitempty"`
}

// VRRPMaster is another router that is master of a virtual router.
type VRRPMaster struct {
	Address netip.Addr `json:"address"`
	// Node is its name if it is a member of this cluster.
	Node      string  `json:"node,omitempty"`
	Priority  int     `json:"priority"`
	AdvertInt float64 `json:"advert_int_seconds"`
}

// VRRPProblem is one thing that is wrong with what another router sends.
type VRRPProblem struct {
	// Reason is a stable word, such as "version", "auth_data", "interval",
	// "address_list", "vrid_collision" or "duplicate_speaker".
	Reason string     `json:"reason"`
	From   netip.Addr `json:"from"`
	// Node is the sender's name if it is a member of this cluster.
	Node string `json:"node,omitempty"`
	// Text says what it means.
	Text  string `json:"text"`
	Count uint64 `json:"count"`
	// Age is the time since it was last seen.
	Age float64 `json:"age_seconds"`
	// Dropped: the packets had no effect here.
	Dropped bool `json:"dropped"`
}
