// Package identity tells which processes hold the members' identities: two that hold the
// same one, and one whose disk has less than its node had acknowledged, are found here.
// It is pure.
package identity
