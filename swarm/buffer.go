package swarm

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Sizes of the pools of buffers: powers of two from 16 KiB to 1 MiB.
const (
	minClass = 14
	maxClass = 20
)

var pools [maxClass - minClass + 1]sync.Pool

// buffer holds one blob, or its compressed form. It goes back to its pool when the last reference is released.
type buffer struct {
	b     []byte
	plain int // b is the zstd frame of a blob of so many bytes; 0: the blob itself
	class int
	refs  atomic.Int32
}

// size returns the length of the blob itself.
func (f *buffer) size() int {
	if f.plain > 0 {
		return f.plain
	}
	return len(f.b)
}

// newBuffer returns a buffer of n bytes, 1 ≤ n ≤ 1 MiB, with one reference.
func newBuffer(n int) *buffer {
	c := max(bits.Len(uint(n-1)), minClass) - minClass
	f, _ := pools[c].Get().(*buffer)
	if f == nil {
		f = &buffer{b: make([]byte, 1<<(c+minClass)), class: c}
	}
	f.b, f.plain = f.b[:n], 0
	f.refs.Store(1)
	return f
}

func (f *buffer) retain() *buffer { f.refs.Add(1); return f }

func (f *buffer) release() {
	if f.refs.Add(-1) == 0 {
		f.b = f.b[:cap(f.b)]
		pools[f.class].Put(f)
	}
}

// cacheBytes bounds the blobs that are kept because they are about to be sent to several members.
const cacheBytes = 4 << 20

type blobKey struct {
	id [32]byte
	i  uint32
}

// cache keeps the latest blobs, first in, first out. It has no lock of its own.
type cache struct {
	m     map[blobKey]*buffer
	order []blobKey // oldest first
	size  int
}

// add keeps f, with a reference of its own.
func (c *cache) add(k blobKey, f *buffer) {
	if c.m == nil {
		c.m = map[blobKey]*buffer{}
	}
	if _, ok := c.m[k]; ok {
		return
	}
	c.m[k] = f.retain()
	c.order = append(c.order, k)
	c.size += cap(f.b)
	for c.size > cacheBytes {
		c.evict(0)
	}
}

// get returns the blob with a new reference, or nil.
func (c *cache) get(k blobKey) *buffer {
	if f := c.m[k]; f != nil {
		return f.retain()
	}
	return nil
}

// drop forgets one blob.
func (c *cache) drop(k blobKey) {
	if c.m[k] == nil {
		return
	}
	for n, o := range c.order {
		if o == k {
			c.evict(n)
			return
		}
	}
}

// clear forgets everything.
func (c *cache) clear() {
	for len(c.order) > 0 {
		c.evict(len(c.order) - 1)
	}
	c.order = nil
}

func (c *cache) evict(n int) {
	k := c.order[n]
	c.order = append(c.order[:n], c.order[n+1:]...)
	f := c.m[k]
	delete(c.m, k)
	c.size -= cap(f.b)
	f.release()
}
