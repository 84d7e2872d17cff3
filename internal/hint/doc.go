// Package hint is what a node says of itself in its reports, and what others make of
// it: candidates for the policy, and troubles for operators. It is advice. Whatever a
// node says, true or not, puts no address up: it can start a hand-over, or keep one away.
package hint
