package api

import (
	"errors"

	"github.com/raftvip/raftvip/cluster/state"
)

// WithHint adds to an error what the operator should do next.
func WithHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &hinted{err, hint}
}

type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// HintOf returns what the operator should do about an error, or "".
func HintOf(err error) string {
	var h *hinted
	if errors.As(err, &h) {
		return h.hint
	}
	var r *state.Refusal
	if errors.As(err, &r) {
		return r.Hint
	}
	return ""
}
