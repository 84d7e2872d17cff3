package identity

// What can be wrong with who holds an identity.
type FindingKind string

// Kinds of findings.
const (
	// FindingTwo: two processes hold the identity at the same time.
	FindingTwo FindingKind = "two_holders"
	// FindingMoved: the identity was moved to another machine, and this is the old one.
	FindingMoved FindingKind = "moved"
	// FindingBack: the node has less on its disk than it had acknowledged.
	FindingBack FindingKind = "rolled_back"
	// FindingDiverged: the node's replicated state differs from another's at the same version.
	FindingDiverged FindingKind = "diverged"
)

// A Finding is something wrong with a node that only its peers can see. The first three
// keep it from voting and owning.
type Finding struct {
	Node string      `json:"node"` // node ID
	Kind FindingKind `json:"kind"`
	// Text says it for people, Hint what to do.
	Text string `json:"text"`
	Hint string `json:"hint"`
}
