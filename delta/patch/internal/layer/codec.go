package layer

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"updraft/delta/patch/internal/lz4"
	"updraft/delta/patch/internal/xz"
	"updraft/delta/patch/internal/zstd"
)

// codec takes members apart that are made again from their plain bytes and their parse:
// what their compressor decided.
type codec struct {
	magics [][]byte
	split  func(src io.ReaderAt, off, end int64, plain, parse io.Writer, unit func() error) (packed int64, err error)
	join   func(w io.Writer, plain, parse io.Reader) error
	// strange are the errors of split for what is no member; corrupt is join's.
	strange []error
	corrupt error
}

// codecs has the codecs of wraps; nil: deflate.
var codecs = [wraps]*codec{
	Zstd:     {magics: [][]byte{{0x28, 0xb5, 0x2f, 0xfd}}, split: zstd.Split, join: zstd.Join, strange: []error{zstd.ErrFormat, zstd.ErrUnsupported}, corrupt: zstd.ErrCorrupt},
	LZ4Block: {split: splitBlock, join: lz4.Join, strange: []error{lz4.ErrFormat, lz4.ErrUnsupported}, corrupt: lz4.ErrCorrupt},
	LZ4:      {magics: [][]byte{{0x04, 0x22, 0x4d, 0x18}, {0x02, 0x21, 0x4c, 0x18}}, split: lz4.Split, join: lz4.Join, strange: []error{lz4.ErrFormat, lz4.ErrUnsupported}, corrupt: lz4.ErrCorrupt},
	XZ:       {magics: [][]byte{{0xfd, '7', 'z', 'X', 'Z', 0}}, split: xz.Split, join: xz.Join, strange: []error{xz.ErrFormat, xz.ErrUnsupported}, corrupt: xz.ErrCorrupt},
}

// splitBlock takes all from off to end apart.
func splitBlock(src io.ReaderAt, off, end int64, plain, parse io.Writer, unit func() error) (packed int64, err error) {
	return end - off, lz4.SplitBlock(src, off, end, plain, parse, unit)
}

// Parsed reports whether members are made from plain bytes and a parse.
func (w Wrap) Parsed() bool { return w < wraps && codecs[w] != nil }

// isStrange reports whether err says that there is no member.
func (c *codec) isStrange(err error) bool {
	for _, s := range c.strange {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}

// Join writes the member that plain and parse make.
func (w Wrap) Join(to io.Writer, plain, parse io.Reader) error {
	c := codecs[w]
	err := c.join(to, plain, parse)
	if errors.Is(err, c.corrupt) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// maxQueue is the most bytes of a parse that may wait for their plain bytes.
const maxQueue = 2 << 20

// Queue holds the parse of members that are to be made. Not safe for concurrent use.
type Queue struct {
	b  []byte
	at int // of b: what is in front of it has been read
	// left is how much of it is the parse of the member at hand.
	left int64
}

// Write appends to the queue. ErrCorrupt: more waits there than may.
func (q *Queue) Write(b []byte) (int, error) {
	if n := q.Len() + len(b); n > maxQueue {
		return 0, fmt.Errorf("%w: %d bytes of parse wait", ErrCorrupt, n)
	}
	q.b = append(q.b[:copy(q.b, q.b[q.at:])], b...)
	q.at = 0
	return len(b), nil
}

// Len returns how many bytes wait.
func (q *Queue) Len() int { return len(q.b) - q.at }

// take reads what there is.
func (q *Queue) take(b []byte) int {
	n := copy(b[:min(int64(len(b)), q.left)], q.b[q.at:])
	q.at += n
	q.left -= int64(n)
	return n
}

// limit says how long the parse of the next member is.
func (q *Queue) limit(n int64) { q.left = n }

// unread returns how much of that has not been read.
func (q *Queue) unread() int64 { return q.left }

// need is what a joiner waits for.
type need uint8

const (
	needPlain need = iota
	needParse
)

// SplitMemory and JoinMemory bound what taking a frame apart and making one hold, in
// bytes.
const (
	SplitMemory = max(lz4.SplitMemory, xz.SplitMemory, zstd.SplitMemory)
	JoinMemory  = max(lz4.JoinMemory, xz.JoinMemory, zstd.JoinMemory) + maxQueue
)

// errStopped ends a Join that nobody waits for any more.
var errStopped = errors.New("layer: stopped")

// joiner runs a Join whose input comes piece by piece: a coroutine.
type joiner struct {
	plain []byte // that has come
	queue *Queue
	err   error // of Join, once it has ended
	next  func() (need, bool)
	stop  func()
}

// newJoiner begins the member that w says. It must be stopped.
func newJoiner(w Wrap, to io.Writer, queue *Queue) *joiner {
	j := &joiner{queue: queue}
	j.next, j.stop = iter.Pull(func(yield func(need) bool) {
		j.err = w.Join(to, waiter{needPlain, yield, func(b []byte) int {
			n := copy(b, j.plain)
			j.plain = j.plain[n:]
			return n
		}}, waiter{needParse, yield, queue.take})
	})
	return j
}

// write takes plain bytes; last says that they are the member's last ones. It returns
// when they are used up, or at the end of the member.
func (j *joiner) write(b []byte, last bool) error {
	j.plain = b
	what, more := j.next()
	switch {
	case !more && j.err != nil:
		return j.err
	case !more && !(last && len(j.plain) == 0):
		return fmt.Errorf("%w: the member ends early", ErrCorrupt)
	case !more, len(j.plain) == 0 && !last:
		return nil
	case what == needParse:
		return fmt.Errorf("%w: parse is missing", ErrCorrupt)
	}
	return fmt.Errorf("%w: the member goes on", ErrCorrupt)
}

// waiter reads what comes piece by piece.
type waiter struct {
	what  need
	yield func(need) bool
	take  func(b []byte) int
}

// Read implements io.Reader.
func (w waiter) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		if n := w.take(b); n > 0 {
			return n, nil
		}
		if !w.yield(w.what) {
			return 0, errStopped
		}
	}
}
