package group

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Bounds of one value on a Raft connection. The bytes are looked at before anything
// is decoded: a decoder makes eight bytes or more out of each one-byte nil.
const (
	// maxWireElements bounds the elements of all lists and maps of a message.
	maxWireElements = 16 << 10
	maxWireDepth    = 8
	// maxAppend bounds an AppendEntries request in bytes, maxSmall any other message.
	maxAppend = 8 << 20
	maxSmall  = 256 << 10
)

var (
	errWireSize  = errors.New("message is too long")
	errWireShape = errors.New("message has too many parts")
)

// readValue reads one msgpack value from r, without understanding it, and returns its
// bytes. It reads no byte after it. grow is called before more than maxSmall is held;
// nil for no such step.
func readValue(r io.Reader, limit int, grow func() error) ([]byte, error) {
	var buf bytes.Buffer
	take := func(n int) ([]byte, error) {
		at := buf.Len()
		if n < 0 || n > limit-at {
			return nil, fmt.Errorf("%w: over %d bytes", errWireSize, limit)
		}
		if at <= maxSmall && at+n > maxSmall && grow != nil {
			if err := grow(); err != nil {
				return nil, err
			}
		}
		// What is held grows with what has arrived, not with what was announced.
		if _, err := io.CopyN(&buf, r, int64(n)); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		return buf.Bytes()[at:], nil
	}
	size := func(bytes int) (int, error) {
		b, err := take(bytes)
		n := 0
		for _, v := range b {
			if n > limit {
				break
			}
			n = n<<8 | int(v)
		}
		return n, err
	}
	left, elements := []int{1}, 0 // values to come, in each list and map that is open
	for len(left) > 0 {
		if left[len(left)-1] == 0 {
			left = left[:len(left)-1]
			continue
		}
		left[len(left)-1]--
		b, err := take(1)
		if err != nil {
			return nil, err
		}
		kind := b[0]
		body, children := 0, 0
		switch {
		case kind <= 0x7f, kind >= 0xe0, kind == 0xc0, kind == 0xc2, kind == 0xc3:
		case kind <= 0x8f:
			children = 2 * int(kind&0x0f)
		case kind <= 0x9f:
			children = int(kind & 0x0f)
		case kind <= 0xbf:
			body = int(kind & 0x1f)
		case kind >= 0xc4 && kind <= 0xc6: // bin
			body, err = size(1 << (kind - 0xc4))
		case kind >= 0xc7 && kind <= 0xc9: // ext, with a byte for its type
			body, err = size(1 << (kind - 0xc7))
			body++
		case kind == 0xca, kind == 0xce, kind == 0xd2:
			body = 4
		case kind == 0xcb, kind == 0xcf, kind == 0xd3:
			body = 8
		case kind == 0xcc, kind == 0xd0:
			body = 1
		case kind == 0xcd, kind == 0xd1:
			body = 2
		case kind >= 0xd4 && kind <= 0xd8: // ext of 1, 2, 4, 8, 16 bytes
			body = 1 + 1<<(kind-0xd4)
		case kind >= 0xd9 && kind <= 0xdb: // str
			body, err = size(1 << (kind - 0xd9))
		case kind == 0xdc, kind == 0xdd: // list
			children, err = size(2 << (kind - 0xdc))
		case kind == 0xde, kind == 0xdf: // map
			children, err = size(2 << (kind - 0xde))
			children *= 2
		default:
			err = fmt.Errorf("byte %#x begins no value", kind)
		}
		if err != nil {
			return nil, err
		}
		if _, err := take(body); err != nil {
			return nil, err
		}
		if elements += children; elements > maxWireElements || children > maxWireElements || len(left) > maxWireDepth {
			return nil, fmt.Errorf("%w: at most %d, %d deep", errWireShape, maxWireElements, maxWireDepth)
		}
		left = append(left, children)
	}
	return buf.Bytes(), nil
}
