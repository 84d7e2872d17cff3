package vrrp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vrrpcompat"
	"github.com/raftvip/raftvip/vrrpcompat/vrrpnet"
)

// What is said about promise P1.
const (
	hybridGuarantee = "two nodes of this cluster never answer at once; between the cluster and other VRRP routers it is as VRRP has it"
	plainGuarantee  = "P1 does not hold: without Raft two routers that do not hear each other both answer"
)

// Status is that of all instances that speak VRRP. names are the nodes by the addresses
// from which they speak.
func (h *Hybrid) Status(names map[netip.Addr]string) []api.VirtualRouter {
	var out []api.VirtualRouter
	h.each(func(p *virtualRouter) {
		if p.speaks {
			out = append(out, p.status(names))
		}
	})
	return out
}

func (p *virtualRouter) status(names map[netip.Addr]string) api.VirtualRouter {
	v := api.VirtualRouter{Instance: p.name, Mode: string(config.VRRPHybrid), State: "fault", Why: p.last.why, Guarantee: hybridGuarantee}
	if p.speaker != nil {
		describeSpeaker(&v, p.settings, p.speaker.Status(), names)
		v.Up = p.last.up && p.slot.permitted()
	}
	if p.fault != "" {
		v.State, v.Why, v.Up = "fault", p.fault, false
	}
	return v
}

// describeSpeaker fills in what a virtual router says of itself.
func describeSpeaker(v *api.VirtualRouter, s speakerSettings, st vrrpnet.Status, names map[netip.Addr]string) {
	v.VRID, v.Version, v.AdvertInt = int(s.net.VRID), int(s.machine.Version), s.machine.Interval.Seconds()
	v.State, v.Entitled, v.Priority = st.State.String(), st.Entitled, int(st.Priority)
	v.Interface, v.VMAC, v.Source, v.Destinations = st.Interface, st.VMAC, st.Source, st.Destinations
	if v.Interface == "" {
		v.Interface = s.net.Interface
	}
	v.Sent, v.NotSent, v.Received = st.Sent, st.NotSent, st.Received.Received()
	for _, reason := range vrrpcompat.Drops() {
		if n := st.Received.Dropped(reason); n > 0 {
			if v.Dropped == nil {
				v.Dropped = make(map[string]uint64)
			}
			v.Dropped[reason.String()] = n
		}
	}
	if o := st.Other; o != nil {
		v.Master = &api.VRRPMaster{Address: o.Addr, Node: names[o.Addr], Priority: int(o.Priority), AdvertInt: o.Interval.Seconds()}
	}
	now := boottime.Now()
	for _, n := range st.Notes {
		v.Problems = append(v.Problems, api.VRRPProblem{
			Reason: n.Reason, From: n.Sender, Node: names[n.Sender], Text: problemText(s, n), Count: n.Count,
			Age: (now - n.Last).Seconds(), Dropped: n.Dropped,
		})
	}
	if dup := st.Duplicate; dup != nil {
		v.Problems = append(v.Problems, api.VRRPProblem{
			Reason: "duplicate_speaker", From: dup.Addr, Node: names[dup.Addr], Count: dup.Count,
			Text: fmt.Sprintf("goes on advertising for %s though this node owns the group", (now - dup.Since).Round(time.Second)),
		})
	}
	slices.SortStableFunc(v.Problems, func(a, b api.VRRPProblem) int { return cmp.Compare(a.Age, b.Age) })
}

// problemText says what an oddity means.
func problemText(s speakerSettings, n vrrpnet.Note) string {
	detail := ""
	if n.Detail != "" {
		detail = " (" + n.Detail + ")"
	}
	own := s.machine
	switch n.Reason {
	case vrrpcompat.DropVersion.String():
		return fmt.Sprintf("speaks another VRRP version%s than this node (version %d): neither heeds the other", detail, own.Version)
	case vrrpcompat.DropAuthType.String():
		return fmt.Sprintf("has another authentication%s than this node: neither heeds the other", detail)
	case vrrpcompat.DropAuthData.String():
		return "has another password (auth_pass) than this node: neither heeds the other"
	case vrrpcompat.DropInterval.String(): // and MismatchInterval
		if n.Dropped {
			return fmt.Sprintf("has another advert_int%s than this node (%ss): neither heeds the other", detail, seconds(own.Interval))
		}
		return fmt.Sprintf("has another advert_int%s than this node (%ss); the master's counts", detail, seconds(own.Interval))
	case vrrpcompat.DropAddressList.String(): // and MismatchAddresses
		text := fmt.Sprintf("has another virtual_ipaddress list%s than this node; keepalived up to 2.3.2 drops our advertisements", detail)
		if n.Dropped {
			text += ", and this node drops its"
		}
		return text
	case vrrpcompat.DropVRIDCollision.String():
		return fmt.Sprintf("is another virtual router%s with the same virtual_router_id %d on this network: give one of them another number", detail, s.net.VRID)
	case vrrpcompat.DropNotUnicast.String():
		return fmt.Sprintf("sends multicast%s, this node unicast: neither heeds the other", detail)
	case vrrpcompat.DropNotMulticast.String():
		return fmt.Sprintf("does not send to the group%s: neither heeds the other", detail)
	case vrrpcompat.DropChecksumForm.String():
		return "calculates the checksum the other way: v3_checksum_as_v2 differs, and neither heeds the other"
	case vrrpcompat.DropTTL.String(), vrrpcompat.DropPeerTTL.String():
		return fmt.Sprintf("is too many hops away%s: its packets are dropped", detail)
	case vrrpcompat.DropSource.String():
		return "is not in unicast_peer: its packets are dropped"
	case vrrpnet.ReasonSameAddress:
		return "another router sends from this node's own address: an address is in use twice"
	case vrrpnet.ReasonLooped:
		return "the network brings this node's own advertisements back"
	}
	return "sends packets that are dropped: " + n.Reason + detail
}

// seconds shows a duration as advert_int does.
func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// KeptAddress is an address as its keeper sees it.
func KeptAddress(instance string, k vip.AddressStatus) api.Address {
	out := api.Address{Prefix: k.Prefix, Instance: instance, Link: k.Link, State: "absent", Announced: k.Announced}
	switch {
	case k.Up():
		out.State = "present"
	case k.State == vip.StateForeign:
		out.State = "foreign"
	}
	switch {
	case k.Err != nil:
		out.Problem = k.Err.Error()
	case k.Why != "":
		out.Problem = k.Why
	case k.AnnounceErr != nil:
		out.Problem = k.AnnounceErr.Error()
	}
	return out
}
