package vrrpcompat

// An Action is what a [Machine] wants to be done. Actions are done in order, each
// before the next. The set is closed: SendAdvertisement, BecomeMaster,
// BecomeBackup, Announce.
type Action interface{ action() }

// SendAdvertisement sends an advertisement with this priority.
type SendAdvertisement struct{ Priority uint8 }

// BecomeMaster puts the virtual addresses up and announces them.
type BecomeMaster struct{ Reason string }

// BecomeBackup takes the virtual addresses down. It is also what a machine says
// when it starts as Backup, and when a master is shut down (its state is then
// Initialize).
type BecomeBackup struct{ Reason string }

// Announce announces the addresses of a master again (gratuitous ARP, unsolicited
// neighbour advertisement): another router claimed them.
type Announce struct{}

func (SendAdvertisement) action() {}
func (BecomeMaster) action()      {}
func (BecomeBackup) action()      {}
func (Announce) action()          {}
