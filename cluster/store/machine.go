package store

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/internal/machine"
)

// Files of a data directory that say whether it may be used here.
const (
	machineFile = "machine.json"
	VoidFile    = "void.json"
)

// A binding is what the data directory remembers of its machine.
type binding struct {
	machine.Facts
	// Claim counts the moves to another machine; see Run.
	Claim uint64    `json:"claim,omitempty"`
	At    time.Time `json:"at"`
}

// An OtherMachineError says that the data directory was used on another machine, so
// that its node may be alive there.
type OtherMachineError struct {
	Path string
	Node string
	// Differs says by what.
	Differs string
}

func (e *OtherMachineError) Error() string {
	return fmt.Sprintf("data dir %s of node %s belongs to another machine: this one has %s", e.Path, e.Node, e.Differs)
}

// ErrRolledBack: the directory is an older state of its node, which has acknowledged more.
var ErrRolledBack = errors.New("the data dir is older than what its node has acknowledged")

// bind ties the directory to this machine.
func (d *DataDir) bind(now machine.Facts, claim uint64) error {
	return d.write(machineFile, binding{Facts: now, Claim: claim, At: time.Now().UTC()})
}

// Claim returns the directory's claim if it is on its machine, and notes what is new of
// that. A directory from before there were bindings is bound to the machine it is found on.
func (d *DataDir) Claim(node string, now machine.Facts) (uint64, error) {
	var f identity.Finding
	if err := d.read(VoidFile, &f); err == nil {
		return 0, fmt.Errorf("%s: %w: %s", d.path, ErrRolledBack, f.Text)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	var b binding
	err := d.read(machineFile, &b)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, d.bind(now, 0)
	} else if err != nil {
		return 0, err
	}
	if why := machine.Differs(b.Facts, now); why != "" {
		return 0, &OtherMachineError{Path: d.path, Node: node, Differs: why}
	}
	if merged := machine.Merge(b.Facts, now); merged.MachineID != b.MachineID || merged.ProductUUID != b.ProductUUID || !slices.Equal(merged.Hardware, b.Hardware) {
		return b.Claim, d.bind(merged, b.Claim)
	}
	return b.Claim, nil
}

// NoteMachine remembers the machine's interfaces: at the next start one of them is to
// be known, and the process that runs is on its machine.
func (d *DataDir) NoteMachine(now machine.Facts) error {
	var b binding
	if err := d.read(machineFile, &b); err != nil {
		return err
	}
	if merged := machine.Merge(b.Facts, now); !slices.Equal(merged.Hardware, b.Hardware) {
		b.Facts = merged
		return d.write(machineFile, b)
	}
	return nil
}

// MoveHere binds the directory to this machine. It is an operator's word that its node
// lives here from now on and nowhere else: other members do not listen to the one that
// was there before any more.
func (d *DataDir) MoveHere() error {
	if _, err := d.Identity(); err != nil {
		return err
	}
	var b binding
	if err := d.read(machineFile, &b); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.bind(machine.Read(), b.Claim+1)
}

// MarkVoid notes that the directory must not be used any more.
func (d *DataDir) MarkVoid(why identity.Finding) error { return d.write(VoidFile, why) }
