package cluster

import "fmt"

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

func refuse(code, hint, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// Refuse makes a refusal for packages that answer on the cluster's behalf.
func Refuse(code, hint, format string, args ...any) *Refusal {
	return refuse(code, hint, format, args...)
}
