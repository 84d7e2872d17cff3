// Package state is what the nodes of a cluster agree on, and the commands that change
// it. It is pure: applying the same commands in the same order gives the same state on
// every node, whatever it runs.
package state
