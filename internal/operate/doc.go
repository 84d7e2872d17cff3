// Package operate answers what operators ask on the control socket and what other
// members ask on the node port: status and history, transfers, drills and the doctor,
// membership, tokens, and the list of addresses. It also watches for a loss of the quorum
// and for other machines' claims of addresses, and tells. It sees the lease and the
// addresses, and decides about neither: it asks the owner to move, has commands applied,
// and refuses what would silence the addresses unless that was asked for.
package operate
