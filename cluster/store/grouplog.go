package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/raftvip/raftvip/cluster/state"
)

// The logs of the ownership groups are in one file, so that entries of several groups
// that wait at the same moment are written with one sync: when a node dies, all of its
// groups elect at once. In the file each group has a bucket with its record and its log.
var (
	recordKey = []byte("record")
	endedKey  = []byte("ended") // the version of the state that has the group no more
	goneKey   = []byte("gone")  // everything else of it is removed
	logBucket = []byte("log")
)

// groupLogs is that file.
type groupLogs struct {
	db     *bbolt.DB
	writes batch[func(*bbolt.Tx) error]
}

func openGroupLogs(path string) (l *groupLogs, err error) {
	defer func() {
		if p := recover(); p != nil { // bbolt on damaged pages
			err = fmt.Errorf("open log %s: %w: %v", path, ErrLogLost, p)
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 2 * time.Second})
	if err != nil {
		return nil, openError(path, err)
	}
	l = &groupLogs{db: db}
	l.writes.do = l.commit
	return l, nil
}

// commit writes all changes in one transaction. If one of them fails, each is tried alone.
func (l *groupLogs) commit(changes []func(*bbolt.Tx) error) []error {
	err := l.db.Update(func(tx *bbolt.Tx) error {
		for _, change := range changes {
			if err := change(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil || len(changes) == 1 {
		return []error{err}
	}
	errs := make([]error, len(changes))
	for i, change := range changes {
		errs[i] = l.db.Update(change)
	}
	return errs
}

func (l *groupLogs) update(change func(*bbolt.Tx) error) error { return l.writes.add(change) }

// A groupEntry is what the file says of a group.
type groupEntry struct {
	record state.GroupRecord
	// ended is the version of the default group's state that has the group no more, or 0;
	// gone: nothing but this is left of it.
	ended uint64
	gone  bool
}

// groups lists them, by ID.
func (l *groupLogs) groups() (map[string]groupEntry, error) {
	out := make(map[string]groupEntry)
	err := l.db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			e := groupEntry{gone: b.Get(goneKey) != nil}
			if v := b.Get(endedKey); len(v) == 8 {
				e.ended = binary.BigEndian.Uint64(v)
			}
			if err := json.Unmarshal(b.Get(recordKey), &e.record); err != nil || e.record.ID != string(name) || checkGroupID(e.record.ID) != nil {
				return fmt.Errorf("%w: the record of group %q is damaged", ErrLogLost, name)
			}
			out[string(name)] = e
			return nil
		})
	})
	return out, err
}

// create makes a group's log, if it is not there.
func (l *groupLogs) create(r state.GroupRecord) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("make log of group %s: %w", r.ID, err)
	}
	err = l.update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(r.ID))
		if err != nil || b.Get(recordKey) != nil {
			return err
		}
		_, err = b.CreateBucketIfNotExists(logBucket)
		return errors.Join(err, b.Put(recordKey, text))
	})
	if err != nil {
		return fmt.Errorf("make log of group %s: %w", r.ID, err)
	}
	return nil
}

// end notes that a group is to be removed. A group is gone when its log is; forget removes
// what says so.
func (l *groupLogs) end(id string, version uint64) error {
	return l.change(id, func(b *bbolt.Bucket) error { return b.Put(endedKey, indexKey(version)) })
}

func (l *groupLogs) remove(id string) error {
	return l.change(id, func(b *bbolt.Bucket) error {
		if b.Bucket(logBucket) == nil {
			return nil
		}
		return errors.Join(b.DeleteBucket(logBucket), b.Put(goneKey, []byte{1}))
	})
}

func (l *groupLogs) change(id string, change func(*bbolt.Bucket) error) error {
	return l.update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(id))
		if b == nil {
			return nil
		}
		return change(b)
	})
}

func (l *groupLogs) forget(id string) error {
	return l.update(func(tx *bbolt.Tx) error {
		if tx.Bucket([]byte(id)) == nil {
			return nil
		}
		return tx.DeleteBucket([]byte(id))
	})
}

// A groupLog is the log of one group (raft.LogStore).
type groupLog struct {
	*groupLogs
	id []byte
}

func (l groupLog) bucket(tx *bbolt.Tx) (*bbolt.Bucket, error) {
	if b := tx.Bucket(l.id); b != nil {
		if log := b.Bucket(logBucket); log != nil {
			return log, nil
		}
	}
	return nil, fmt.Errorf("the log of group %s was removed", l.id)
}

// FirstIndex implements raft.LogStore.
func (l groupLog) FirstIndex() (uint64, error) {
	return l.edge(func(c *bbolt.Cursor) []byte { k, _ := c.First(); return k })
}

// LastIndex implements raft.LogStore.
func (l groupLog) LastIndex() (uint64, error) {
	return l.edge(func(c *bbolt.Cursor) []byte { k, _ := c.Last(); return k })
}

// edge returns the index at one end of the log, 0 if it is empty.
func (l groupLog) edge(at func(*bbolt.Cursor) []byte) (index uint64, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		b, err := l.bucket(tx)
		if err != nil {
			return err
		}
		if k := at(b.Cursor()); len(k) == 8 {
			index = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return index, err
}

// GetLog implements raft.LogStore.
func (l groupLog) GetLog(index uint64, into *raft.Log) error {
	return l.db.View(func(tx *bbolt.Tx) error {
		b, err := l.bucket(tx)
		if err != nil {
			return err
		}
		v := b.Get(indexKey(index))
		if v == nil {
			return raft.ErrLogNotFound
		}
		return decodeEntry(v, into)
	})
}

// StoreLog implements raft.LogStore.
func (l groupLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (l groupLog) StoreLogs(entries []*raft.Log) error {
	return l.update(func(tx *bbolt.Tx) error {
		b, err := l.bucket(tx)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := b.Put(indexKey(e.Index), encodeEntry(e)); err != nil {
				return err
			}
		}
		return nil
	})
}

// DeleteRange implements raft.LogStore.
func (l groupLog) DeleteRange(first, last uint64) error {
	return l.update(func(tx *bbolt.Tx) error {
		b, err := l.bucket(tx)
		if err != nil {
			return err
		}
		c := b.Cursor()
		for k, _ := c.Seek(indexKey(first)); k != nil && binary.BigEndian.Uint64(k) <= last; k, _ = c.Next() {
			if err := c.Delete(); err != nil {
				return err
			}
		}
		return nil
	})
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

// An entry on the disk: index, term, type, time in nanoseconds, length of the extensions,
// extensions, data.
const entryHeader = 8 + 8 + 1 + 8 + 4

func encodeEntry(e *raft.Log) []byte {
	b := make([]byte, 0, entryHeader+len(e.Extensions)+len(e.Data))
	b = binary.BigEndian.AppendUint64(b, e.Index)
	b = binary.BigEndian.AppendUint64(b, e.Term)
	b = append(b, byte(e.Type))
	appended := int64(0)
	if !e.AppendedAt.IsZero() {
		appended = e.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(appended))
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Extensions)))
	b = append(b, e.Extensions...)
	return append(b, e.Data...)
}

func decodeEntry(b []byte, into *raft.Log) error {
	if len(b) < entryHeader {
		return fmt.Errorf("%w: an entry of %d bytes", ErrLogLost, len(b))
	}
	extensions := binary.BigEndian.Uint32(b[25:])
	rest := b[entryHeader:]
	if uint64(len(rest)) < uint64(extensions) {
		return fmt.Errorf("%w: an entry that is cut off", ErrLogLost)
	}
	*into = raft.Log{Index: binary.BigEndian.Uint64(b), Term: binary.BigEndian.Uint64(b[8:]), Type: raft.LogType(b[16])}
	if at := int64(binary.BigEndian.Uint64(b[17:])); at != 0 {
		into.AppendedAt = time.Unix(0, at)
	}
	// Copies: the bytes are the file's, and only during the transaction.
	if extensions > 0 {
		into.Extensions = append([]byte(nil), rest[:extensions]...)
	}
	if data := rest[extensions:]; len(data) > 0 {
		into.Data = append([]byte(nil), data...)
	}
	return nil
}
