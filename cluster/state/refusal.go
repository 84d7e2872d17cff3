package state

import (
	"fmt"
	"time"
)

// A Refusal is an answer of the cluster that an operator has to see: what is
// wrong and what to do next. It travels between nodes unchanged.
type Refusal struct {
	// Code is stable and for programs, such as "name_taken".
	Code string `json:"code"`
	// Message says what was refused and why; Hint says what to do next, or is empty.
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Codes of refusals.
const (
	CodeNoLeader      = "no_leader"
	CodeNotLeader     = "not_leader"
	CodeUncertain     = "uncertain"
	CodeNameTaken     = "name_taken"
	CodeWrongToken    = "wrong_token"
	CodeExpiredToken  = "expired_token"
	CodeClock         = "clock"
	CodeRemoved       = "removed"
	CodeNotMember     = "not_member"
	CodeNotFound      = "not_found"
	CodeAddressInUse  = "address_in_use"
	CodeBadRequest    = "bad_request"
	CodeNotReady      = "not_ready"
	CodeTransfer      = "transfer_failed"
	CodeLastVoter     = "last_voter"
	CodeNewerState    = "newer_state"
	CodeTooMany       = "too_many"
	CodeOlderMember   = "older_member"
	CodeAlreadyExists = "already_exists"
	CodeIdentity      = "identity"
	// CodeSilences: it would leave nobody who answers, and CodeOlder: it would undo
	// newer changes. Both are done if asked for with force.
	CodeSilences = "silences"
	CodeOlder    = "older"
	// CodeMoved: the state is another one than the request was made for.
	CodeMoved = "moved"
)

func (r *Refusal) Error() string { return r.Message }

// Refuse makes a refusal.
func Refuse(code, hint, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// olderRefusal keeps a node out that would not understand the state.
func olderRefusal(name string, level, needed int) *Refusal {
	return Refuse(CodeOlderMember, "install the version of raftvip there that the members run",
		"%s runs an older raftvip than the cluster: it knows feature level %d, and %d is needed", name, max(level, 1), needed)
}

func RemovedRefusal(r RemovedNode) *Refusal {
	return Refuse(CodeRemoved, "stop its daemon, clear its data dir, and join again with a new token",
		"node %s was removed from the cluster on %s", r.Name, r.At.UTC().Format(time.DateTime))
}
