package delta

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"

	"updraft/delta/chunk"
	"updraft/delta/release"
)

// The directories of an origin that this package fills and reads. What they hold
// is named by its sha2-256, 64 hexadecimal digits.
const (
	PackDir  = "packs"
	PatchDir = "patches"
	IndexDir = "index"
	MapDir   = "maps"
)

// ErrCorrupt reports stored bytes that are not what the manifest says.
var ErrCorrupt = errors.New("delta: stored bytes do not match their digest")

// ObjectName returns the name of an object below an origin's root.
func ObjectName(dir string, sum [32]byte) string {
	return dir + "/" + hex.EncodeToString(sum[:])
}

// encoder turns chunks into their stored form. It takes 34 MiB, whatever it encodes, and is not safe for concurrent use.
type encoder struct{ z *zstd.Encoder }

// spare is an encoder that no job has any more: to make one takes longer than a small release does to compress.
var spare atomic.Pointer[encoder]

// newEncoder returns an encoder, which the caller gives back with put.
func newEncoder() (*encoder, error) {
	if e := spare.Swap(nil); e != nil {
		return e, nil
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithWindowSize(chunk.MaxLen))
	if err != nil {
		return nil, fmt.Errorf("delta: %w", err)
	}
	return &encoder{z}, nil
}

// put keeps e for the next one who wants an encoder, if there is none yet.
func (e *encoder) put() { spare.CompareAndSwap(nil, e) }

// encode appends the stored form of data to dst: a zstd frame, or data itself
// (raw) when the frame would not be smaller.
func (e *encoder) encode(dst, data []byte) (stored []byte, raw bool) {
	stored = e.z.EncodeAll(data, dst)
	if len(stored)-len(dst) < len(data) {
		return stored, false
	}
	return append(stored[:len(dst)], data...), true
}

// Decoder turns stored chunks back. It is safe for concurrent use and holds no
// goroutines.
type Decoder struct{ z *zstd.Decoder }

// NewDecoder returns a Decoder that needs at most about a chunk's length of memory
// for each call under way.
func NewDecoder() (*Decoder, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(chunk.MaxLen), zstd.WithDecoderMaxWindow(chunk.MaxLen),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("delta: %w", err)
	}
	return &Decoder{z}, nil
}

// Chunk returns the plain bytes of c from their stored form, in dst if its capacity
// allows. They have been checked against c.Sum; errors wrap ErrCorrupt.
func (d *Decoder) Chunk(dst, stored []byte, raw bool, c chunk.Chunk) ([]byte, error) {
	if c.Len < 1 || c.Len > chunk.MaxLen {
		return nil, fmt.Errorf("%w: chunk of %d bytes", ErrCorrupt, c.Len)
	}
	if cap(dst) < c.Len {
		dst = make([]byte, 0, c.Len)
	}
	dst = dst[:0:c.Len]
	if raw {
		if len(stored) != c.Len {
			return nil, fmt.Errorf("%w: %d bytes stored for %d", ErrCorrupt, len(stored), c.Len)
		}
		dst = append(dst, stored...)
	} else {
		var err error
		if dst, err = d.z.DecodeAll(stored, dst); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	if len(dst) != c.Len || sha256.Sum256(dst) != c.Sum {
		return nil, fmt.Errorf("%w: chunk %s", ErrCorrupt, chunk.CID(c.Sum))
	}
	return dst, nil
}

// objectWriter writes an object under a temporary name and gives it the name of
// its digest when it is complete.
type objectWriter struct {
	dir  string // with the kind: OUT/packs
	f    *os.File
	hash hash.Hash
	size int64
	// stays: discard leaves the file where it is.
	stays bool
}

// newObject begins an object of the kind dir in the staging directory out.
func newObject(out, dir string) (*objectWriter, error) {
	w := &objectWriter{dir: filepath.Join(out, dir), hash: sha256.New()}
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return nil, fmt.Errorf("delta: %w", err)
	}
	f, err := os.CreateTemp(w.dir, ".new-*")
	if err != nil {
		return nil, fmt.Errorf("delta: %w", err)
	}
	w.f = f
	return w, nil
}

func (w *objectWriter) Write(b []byte) (int, error) {
	n, err := w.f.Write(b)
	w.hash.Write(b[:n])
	w.size += int64(n)
	return n, err
}

// publish makes the object durable under its digest.
func (w *objectWriter) publish() (sum [32]byte, err error) {
	sum = w.sum()
	defer w.discard()
	if err := w.f.Chmod(0o644); err != nil {
		return sum, fmt.Errorf("delta: %w", err)
	}
	if err := w.f.Sync(); err != nil {
		return sum, fmt.Errorf("delta: %w", err)
	}
	path := filepath.Join(w.dir, hex.EncodeToString(sum[:]))
	if err := os.Rename(w.f.Name(), path); err != nil {
		return sum, fmt.Errorf("delta: %w", err)
	}
	return sum, syncDir(w.dir)
}

// sum returns the digest of what has been written.
func (w *objectWriter) sum() (sum [32]byte) {
	w.hash.Sum(sum[:0])
	return sum
}

// discard drops the object unless it was published, or stays.
func (w *objectWriter) discard() {
	w.f.Close()
	if !w.stays {
		os.Remove(w.f.Name())
	}
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	if err := release.SyncDir(dir); err != nil {
		return fmt.Errorf("delta: %w", err)
	}
	return nil
}

// writeObject writes a whole object.
func writeObject(out, dir string, b []byte) (sum [32]byte, err error) {
	w, err := newObject(out, dir)
	if err != nil {
		return sum, err
	}
	if _, err := w.Write(b); err != nil {
		w.discard()
		return sum, fmt.Errorf("delta: %w", err)
	}
	return w.publish()
}

// readObject reads a whole object of at most limit bytes from an origin directory
// and checks its digest. A missing object gives an error that wraps
// fs.ErrNotExist, a wrong one ErrCorrupt.
func readObject(origin, dir string, sum [32]byte, limit int64) ([]byte, error) {
	path := filepath.Join(origin, filepath.FromSlash(ObjectName(dir, sum)))
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("delta: %w", err)
	}
	if !st.Mode().IsRegular() || st.Size() > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes, limit %d", ErrCorrupt, path, st.Size(), limit)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("delta: %w", err)
	}
	if sha256.Sum256(b) != sum {
		return nil, fmt.Errorf("%w: %s", ErrCorrupt, path)
	}
	return b, nil
}

// absent reports that an object is not there at all, rather than wrong.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
