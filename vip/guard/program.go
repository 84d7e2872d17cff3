package guard

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Verdicts. The pass verdict hands the packet to the next program of the chain
// (TCX_NEXT, TC_ACT_UNSPEC; linux/bpf.h, linux/pkt_cls.h). TC_ACT_OK would end the
// chain and silently disable the programs of others.
const (
	verdictPass uint32 = 0xffffffff
	verdictDrop uint32 = 2
)

// A direction is a hook. Its value is its index in the drop counter.
type direction uint32

const (
	ingress direction = 0
	egress  direction = 1
)

func (d direction) String() string {
	if d == ingress {
		return "in"
	}
	return "out"
}

// Offsets in struct __sk_buff (linux/bpf.h).
const (
	skbVLANPresent = 20
	skbVLANTCI     = 24
)

// Places on the stack, relative to the frame pointer. The map keys must be
// aligned to 4.
const (
	stackKey     = -16 // address, 16 bytes, IPv4 mapped into IPv6
	stackIndex   = -20 // array index, 4 bytes
	stackScratch = -24 // header field just read, up to 4 bytes
	stackSPA     = -28 // ARP sender protocol address
)

// maxTags is the number of in-band VLAN tags that are looked through. The kernel
// strips any number of tags with VLAN 0 (net/core/dev.c, check_vlan_id); a frame
// with more of them than this is dropped, as nothing honest sends one.
const maxTags = 4

// registers kept over helper calls: the packet, the offset in it and a value.
const (
	rSkb = asm.R6
	rOff = asm.R7
	rVal = asm.R8
)

// gate assembles one program. See DESIGN.md for the verdict table it implements.
type gate struct {
	maps  *gateMaps
	dir   direction
	insns asm.Instructions
	label string // for the next instruction
}

func (g *gate) add(ins ...asm.Instruction) {
	for _, i := range ins {
		if g.label != "" {
			i = i.WithSymbol(g.label)
			g.label = ""
		}
		g.insns = append(g.insns, i)
	}
}

// at names the next instruction.
func (g *gate) at(label string) {
	if g.label != "" {
		panic("guard: two labels on one instruction")
	}
	g.label = label
}

// load copies n bytes at packet offset rOff+off to the stack and goes to fail
// where the packet is too short. bpf_skb_load_bytes also reads non-linear packets,
// which direct access cannot.
func (g *gate) load(off int32, stack int32, n int32, fail string) {
	g.add(
		asm.Mov.Reg(asm.R1, rSkb),
		asm.Mov.Reg(asm.R2, rOff),
		asm.Add.Imm(asm.R2, off),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stack),
		asm.Mov.Imm(asm.R4, n),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, fail),
	)
}

// load16 reads a big-endian number at rOff+off into rVal.
func (g *gate) load16(off int32, fail string) {
	g.load(off, stackScratch, 2, fail)
	g.add(
		asm.LoadMem(rVal, asm.RFP, stackScratch, asm.Half),
		asm.HostTo(asm.BE, rVal, asm.Half),
	)
}

// key4 makes ::ffff:a.b.c.d of the IPv4 address at rOff+off.
func (g *gate) key4(off int32) {
	g.add(
		asm.StoreImm(asm.RFP, stackKey, 0, asm.Word),
		asm.StoreImm(asm.RFP, stackKey+4, 0, asm.Word),
		asm.StoreImm(asm.RFP, stackKey+8, 0, asm.Half),
		asm.StoreImm(asm.RFP, stackKey+10, 0xffff, asm.Half),
	)
	g.load(off, stackKey+12, 4, "pass")
}

// lookup leaves a pointer to the value in R0 and goes to miss if there is none.
func (g *gate) lookup(m *ebpf.Map, stack int32, miss string) {
	g.add(
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stack),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, miss),
	)
}

// deadline drops if the group whose number is at stackIndex has expired, and goes
// to open otherwise. A missing slot is expired. The clock is read after the
// deadline, so a slow run errs to the closed side.
func (g *gate) deadline(open string) {
	g.lookup(g.maps.deadlines, stackIndex, "drop")
	g.add(
		asm.LoadMem(rVal, asm.R0, 0, asm.DWord),
		asm.FnKtimeGetBootNs.Call(),
		asm.JGE.Reg(asm.R0, rVal, "drop"),
		asm.Ja.Label(open),
	)
}

// check drops if the address at stackKey is armed and its group has expired, and
// goes to open otherwise.
func (g *gate) check(open string) {
	g.lookup(g.maps.vips, stackKey, open)
	g.add(
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.StoreMem(asm.RFP, stackIndex, asm.R1, asm.Word),
	)
	g.deadline(open)
}

// tags moves rOff to the network header and puts the EtherType into rVal. A frame
// of a VLAN other than 0 belongs to another link, where it is judged on the VLAN
// device; priority tags (VLAN 0) are looked through, as the kernel answers them.
func (g *gate) tags() {
	g.add(
		asm.LoadMem(asm.R0, rSkb, skbVLANPresent, asm.Word),
		asm.JEq.Imm(asm.R0, 0, "inband"),
		asm.LoadMem(asm.R0, rSkb, skbVLANTCI, asm.Word),
		asm.And.Imm(asm.R0, 0xfff),
		asm.JNE.Imm(asm.R0, 0, "pass"),
	)
	g.at("inband")
	g.add(asm.Mov.Imm(rOff, 12))
	for i := range maxTags + 1 {
		tag := fmt.Sprintf("tag%d", i)
		g.load16(0, "pass")
		g.add(
			asm.JEq.Imm(rVal, unix.ETH_P_8021Q, tag),
			asm.JNE.Imm(rVal, unix.ETH_P_8021AD, "network"),
		)
		g.at(tag)
		if i == maxTags {
			g.add(asm.Ja.Label("drop"))
			break
		}
		g.load16(2, "pass")
		g.add(
			asm.And.Imm(rVal, 0xfff),
			asm.JNE.Imm(rVal, 0, "pass"),
			asm.Add.Imm(rOff, 4),
		)
	}
	g.at("network")
	g.add(asm.Add.Imm(rOff, 2))
}

// arp judges an ARP packet (RFC 826; sender address at 14, target at 24). An
// announcement (sender = target) may come in: this node must learn the new owner.
func (g *gate) arp() {
	if g.dir == egress {
		g.key4(14)
		g.check("pass")
		return
	}
	g.load(14, stackSPA, 4, "pass")
	g.key4(24)
	g.add(
		asm.LoadMem(asm.R0, asm.RFP, stackSPA, asm.Word),
		asm.LoadMem(asm.R1, asm.RFP, stackKey+12, asm.Word),
		asm.JEq.Reg(asm.R0, asm.R1, "pass"),
	)
	g.check("pass")
}

// ip4 judges the destination coming in, the source going out (RFC 791).
func (g *gate) ip4() {
	off := int32(16)
	if g.dir == egress {
		off = 12
	}
	g.key4(off)
	g.check("pass")
}

// ip6 judges the address like ip4 (RFC 8200) and then the target of a neighbour
// solicitation coming in or a neighbour advertisement going out (RFC 4861 4.3,
// 4.4), which is at 48. An ICMPv6 header behind extension headers is not looked
// for: the kernel's own advertisements have none, and its answer is stopped there.
func (g *gate) ip6() {
	off, ndType := int32(24), int32(135)
	if g.dir == egress {
		off, ndType = 8, 136
	}
	g.load(off, stackKey, 16, "pass")
	g.check("nd")
	g.at("nd")
	g.load(6, stackScratch, 1, "pass")
	g.add(
		asm.LoadMem(asm.R0, asm.RFP, stackScratch, asm.Byte),
		asm.JNE.Imm(asm.R0, unix.IPPROTO_ICMPV6, "pass"),
	)
	g.load(40, stackScratch, 1, "pass")
	g.add(
		asm.LoadMem(asm.R0, asm.RFP, stackScratch, asm.Byte),
		asm.JNE.Imm(asm.R0, ndType, "pass"),
	)
	g.load(48, stackKey, 16, "pass")
	g.check("pass")
}

// end is the code of the two verdicts.
func (g *gate) end() {
	g.at("drop")
	g.add(asm.StoreImm(asm.RFP, stackIndex, int64(g.dir), asm.Word))
	g.lookup(g.maps.drops, stackIndex, "dropped")
	g.add(
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
	)
	g.at("dropped")
	g.add(asm.Mov.Imm(asm.R0, int32(verdictDrop)), asm.Return())
	g.at("pass")
	g.add(asm.Mov.Imm(asm.R0, -1), asm.Return())
}

// gateProgram assembles the program of one direction.
func gateProgram(m *gateMaps, dir direction) asm.Instructions {
	g := &gate{maps: m, dir: dir}
	g.add(asm.Mov.Reg(rSkb, asm.R1))
	g.tags()
	g.add(
		asm.JEq.Imm(rVal, unix.ETH_P_IP, "ip4"),
		asm.JEq.Imm(rVal, unix.ETH_P_IPV6, "ip6"),
		asm.JNE.Imm(rVal, unix.ETH_P_ARP, "pass"),
	)
	g.arp()
	g.at("ip4")
	g.ip4()
	g.at("ip6")
	g.ip6()
	g.end()
	return g.insns
}

// vmacProgram assembles the egress program of a device that carries the virtual
// MAC of one group: after the group's deadline nothing leaves, because any frame
// (router solicitation, MLD report) moves the MAC in the switches.
func vmacProgram(m *gateMaps, group uint32) asm.Instructions {
	g := &gate{maps: m, dir: egress}
	g.add(asm.StoreImm(asm.RFP, stackIndex, int64(group), asm.Word))
	g.deadline("pass")
	g.end()
	return g.insns
}

// programPrefix begins the name of every program.
const programPrefix = "raftvip_"

// A program is a loaded program that can be loaded once more: a hook does not take
// the same one twice, not even while it is moved.
type program struct {
	*ebpf.Program
	name  string
	insns func() asm.Instructions
}

func newProgram(name string, insns func() asm.Instructions) (*program, error) {
	p, err := loadProgram(name, insns())
	if err != nil {
		return nil, err
	}
	return &program{p, name, insns}, nil
}

// again loads the program a second time.
func (p *program) again() (*ebpf.Program, error) { return loadProgram(p.name, p.insns()) }

// loadProgram gives a program to the kernel. The licence is not the GPL: no helper
// used here asks for it.
func loadProgram(name string, insns asm.Instructions) (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         name,
		Type:         ebpf.SchedCLS,
		Instructions: insns,
		License:      "Apache-2.0",
	})
	if err != nil {
		return nil, fmt.Errorf("bpf: load program %s: %w", name, err)
	}
	return p, nil
}
