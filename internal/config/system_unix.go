//go:build unix

package config

import (
	"io/fs"
	"math"
	"syscall"
)

// ownerUID returns the owner of a file, or an id that is never root's.
func ownerUID(info fs.FileInfo) uint32 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Uid
	}
	return math.MaxUint32
}
