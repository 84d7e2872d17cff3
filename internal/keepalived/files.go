package keepalived

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxFileSize bounds one file, so that an include of a device or a log file
// ends in an error rather than in exhausted memory.
const maxFileSize = 16 << 20

// A FileSystem is what the parser needs to read files.
type FileSystem interface {
	ReadFile(name string) ([]byte, error)
	Stat(name string) (fs.FileInfo, error)
	// Glob returns the names that match one filepath.Match pattern, sorted.
	Glob(pattern string) ([]string, error)
}

// OS returns the machine's own files.
func OS() FileSystem { return osFiles{} }

type osFiles struct{}

func (osFiles) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }
func (osFiles) Glob(pattern string) ([]string, error) { return filepath.Glob(pattern) }
func (osFiles) ReadFile(name string) (_ []byte, err error) {
	// A pipe that nobody writes to reads as empty; a daemon must not wait for it.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("larger than %d bytes", maxFileSize)
	}
	return data, nil
}

// Rooted returns the files of fsys, whose root is "/" as well as the current
// directory.
func Rooted(fsys fs.FS) FileSystem { return rooted{fsys} }

type rooted struct{ fsys fs.FS }

func (r rooted) path(name string) string {
	name = strings.TrimPrefix(filepath.ToSlash(filepath.Clean(name)), "/")
	if name == "" {
		return "."
	}
	return name
}

func (r rooted) ReadFile(name string) ([]byte, error)  { return fs.ReadFile(r.fsys, r.path(name)) }
func (r rooted) Stat(name string) (fs.FileInfo, error) { return fs.Stat(r.fsys, r.path(name)) }

func (r rooted) Glob(pattern string) ([]string, error) {
	names, err := fs.Glob(r.fsys, r.path(pattern))
	if strings.HasPrefix(pattern, "/") {
		for i := range names {
			names[i] = "/" + names[i]
		}
	}
	return names, err
}
