package group

import "github.com/hashicorp/raft"

// A voterLog is a log that tells the fence of every configuration stored in it. The
// lease has to be counted with the voters of the moment, at every acknowledgement,
// and to ask Raft for them each time makes garbage.
type voterLog struct {
	raft.LogStore
	fence *fence
}

// StoreLogs implements raft.LogStore.
func (l *voterLog) StoreLogs(logs []*raft.Log) error {
	if err := l.LogStore.StoreLogs(logs); err != nil {
		return err
	}
	for _, entry := range logs {
		if entry.Type == raft.LogConfiguration {
			l.fence.setVoters(votersOf(raft.DecodeConfiguration(entry.Data)))
		}
	}
	return nil
}

// StoreLog implements raft.LogStore.
func (l *voterLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// DeleteRange implements raft.LogStore. Raft deletes the end of its log where a
// leader's differs, and goes back to the configuration before; it deletes the
// beginning when that is in a snapshot, and nothing changes.
func (l *voterLog) DeleteRange(first, last uint64) error {
	if newest, err := l.LastIndex(); err != nil || last >= newest {
		defer l.fence.forgetVoters()
	}
	return l.LogStore.DeleteRange(first, last)
}

// votersOf returns the IDs of a configuration's voters; never nil.
func votersOf(c raft.Configuration) []string {
	ids := []string{}
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}
