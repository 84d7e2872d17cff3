package group

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/cluster/state"
)

const (
	// termReach is how far a term may be ahead of the newest one known here. Terms
	// grow by elections: that many take half a year at one each second.
	termReach = 1 << 24
	// maxEntries bounds the entries of one request; Raft sends 64.
	maxEntries = 256
	// maxEntry bounds one entry of the log in bytes, maxCommand what is put into it.
	maxEntry   = 1 << 20
	maxCommand = maxEntry * 3 / 4
	// maxServers bounds the servers of a configuration.
	maxServers = 128
)

// A logView is what this node's own log says, by which requests are examined.
type logView struct {
	// term is the newest that this node has taken part in; 0 for a node that knows none.
	term uint64
	// commit is the index up to which the log is known to be committed.
	commit uint64
	// termAt returns the term of an entry of the log, 0 for one that is not in it.
	termAt func(index uint64) uint64
}

// examine tells what is wrong with a request of a member. Raft believes what it is
// told: it takes any term for its own, follows a nil entry, stores what it cannot
// decode, and then neither runs nor starts again.
func examine(command any, own logView) error {
	switch req := command.(type) {
	case *raft.AppendEntriesRequest:
		return examineAppend(req, own)
	case *raft.InstallSnapshotRequest:
		return examineSnapshot(req, own)
	case *raft.RequestVoteRequest:
		return errors.Join(examineHeader(req.RPCHeader), examineTerm(req.Term, own), examinePosition(req.LastLogIndex, req.LastLogTerm))
	case *raft.RequestPreVoteRequest:
		return errors.Join(examineHeader(req.RPCHeader), examineTerm(req.Term, own), examinePosition(req.LastLogIndex, req.LastLogTerm))
	case *raft.TimeoutNowRequest:
		return nil // this node's own, see Group.released
	}
	return fmt.Errorf("%w: unknown request %T", errMessage, command)
}

func examineHeader(h raft.RPCHeader) error {
	if !state.NodeID.Match(h.ID) {
		return fmt.Errorf("%w: it names no node", errMessage)
	}
	return examineAddress(string(h.Addr))
}

func examineAddress(a string) error {
	if len(a) > state.MaxAddress {
		return fmt.Errorf("%w: an address of %d bytes, at most %d are allowed", errMessage, len(a), state.MaxAddress)
	}
	for _, c := range []byte(a) {
		if c <= ' ' || c >= 0x7f {
			return fmt.Errorf("%w: address %q", errMessage, a)
		}
	}
	return nil
}

// examineTerm tells whether a term can have been reached.
func examineTerm(term uint64, own logView) error {
	if term > identity.MaxTerm || own.term > 0 && term > own.term && term-own.term > termReach {
		return fmt.Errorf("%w: term %d cannot be reached from term %d", errMessage, term, own.term)
	}
	return nil
}

func examinePosition(index, term uint64) error {
	if index > identity.MaxTerm || term > identity.MaxTerm {
		return fmt.Errorf("%w: no log has entry %d of term %d", errMessage, index, term)
	}
	return nil
}

func examineAppend(req *raft.AppendEntriesRequest, own logView) error {
	if err := errors.Join(examineHeader(req.RPCHeader), examineTerm(req.Term, own),
		examinePosition(req.PrevLogEntry, req.PrevLogTerm), examinePosition(req.LeaderCommitIndex, 0)); err != nil {
		return err
	}
	if len(req.Entries) > maxEntries {
		return fmt.Errorf("%w: %d entries, allowed are %d", errMessage, len(req.Entries), maxEntries)
	}
	term := req.PrevLogTerm
	for i, e := range req.Entries {
		switch {
		case e == nil:
			return fmt.Errorf("%w: entry %d of %d is missing", errMessage, i+1, len(req.Entries))
		case e.Index != req.PrevLogEntry+uint64(i)+1:
			return fmt.Errorf("%w: entry %d follows entry %d", errMessage, e.Index, req.PrevLogEntry+uint64(i))
		case e.Term < term || e.Term > req.Term || e.Term == 0:
			return fmt.Errorf("%w: an entry of term %d after term %d, from the leader of term %d", errMessage, e.Term, term, req.Term)
		case len(e.Data) > maxEntry || len(e.Extensions) > maxEntry:
			return fmt.Errorf("%w: an entry of %d bytes, allowed are %d", errMessage, max(len(e.Data), len(e.Extensions)), maxEntry)
		}
		term = e.Term
		switch e.Type {
		case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
		case raft.LogConfiguration:
			if err := examineConfiguration(e.Data); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: an entry of type %d", errMessage, e.Type)
		}
		// No leader lacks what is committed (Raft thesis, 3.5).
		if e.Index <= own.commit && req.Term >= own.term {
			if mine := own.termAt(e.Index); mine != 0 && mine != e.Term {
				return fmt.Errorf("%w: entry %d is of term %d, the committed one of term %d", errMessage, e.Index, e.Term, mine)
			}
		}
	}
	return nil
}

func examineSnapshot(req *raft.InstallSnapshotRequest, own logView) error {
	err := errors.Join(examineHeader(req.RPCHeader), examineTerm(req.Term, own), examinePosition(req.LastLogIndex, req.LastLogTerm),
		examinePosition(req.ConfigurationIndex, 0), examineConfiguration(req.Configuration))
	switch {
	case err != nil:
		return err
	case req.SnapshotVersion != raft.SnapshotVersionMax:
		return fmt.Errorf("%w: a snapshot of version %d", errMessage, req.SnapshotVersion)
	case req.LastLogTerm > req.Term || req.LastLogIndex == 0 || req.ConfigurationIndex > req.LastLogIndex:
		return fmt.Errorf("%w: a snapshot up to entry %d of term %d, from the leader of term %d", errMessage, req.LastLogIndex, req.LastLogTerm, req.Term)
	}
	return nil
}

// examineConfiguration tells whether Raft can use a configuration.
func examineConfiguration(b []byte) (err error) {
	defer func() {
		if p := recover(); p != nil { // raft.DecodeConfiguration knows no other way
			err = fmt.Errorf("%w: a configuration that cannot be read: %v", errMessage, p)
		}
	}()
	// One value and nothing after it, and not one that only looks small.
	r := bytes.NewReader(b)
	if _, err := readValue(r, maxEntry, nil); err != nil || r.Len() > 0 {
		return fmt.Errorf("%w: a configuration that cannot be read", errMessage)
	}
	c := raft.DecodeConfiguration(b)
	if len(c.Servers) > maxServers {
		return fmt.Errorf("%w: a configuration of %d servers, allowed are %d", errMessage, len(c.Servers), maxServers)
	}
	voters := 0
	ids, addresses := make(map[raft.ServerID]bool), make(map[raft.ServerAddress]bool)
	for _, s := range c.Servers {
		if s.Suffrage < raft.Voter || s.Suffrage > raft.Staging || !state.NodeID.MatchString(string(s.ID)) || s.Address == "" {
			return fmt.Errorf("%w: a configuration with server %q", errMessage, clip(string(s.ID)))
		}
		if err := examineAddress(string(s.Address)); err != nil {
			return err
		}
		if ids[s.ID] || addresses[s.Address] {
			return fmt.Errorf("%w: a configuration with two servers %s at %s", errMessage, s.ID, s.Address)
		}
		ids[s.ID], addresses[s.Address] = true, true
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	if voters == 0 {
		return fmt.Errorf("%w: a configuration without a voter", errMessage)
	}
	return nil
}

// examineAnswer tells what is wrong with a member's answer: Raft steps down at any
// newer term, and may take it for its own.
func examineAnswer(asked raft.ServerID, h raft.RPCHeader, term, own uint64) error {
	if len(h.ID) > 0 && raft.ServerID(h.ID) != asked {
		return fmt.Errorf("%w: node %s was asked, node %q answered", errMessage, asked, clip(string(h.ID)))
	}
	return examineTerm(term, logView{term: own})
}
