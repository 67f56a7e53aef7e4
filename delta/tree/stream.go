package tree

import (
	"container/list"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"sync"
)

// openFiles is how many files of a tree are held open at a time.
const openFiles = 16

// layout says where in the stream each file lies.
type layout struct {
	list   *Listing
	head   []byte  // the listing
	files  []int   // indices of the files that are not empty
	starts []int64 // where in the stream they begin
	size   int64
}

func newLayout(l *Listing) (*layout, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	n := l.length()
	if n > MaxListing {
		return nil, fmt.Errorf("%w: a listing of %d bytes, at most %d MiB", ErrListing, n, MaxListing>>20)
	}
	s := &layout{list: l, head: l.Append(make([]byte, 0, n))}
	s.size = int64(len(s.head))
	for i, e := range l.Entries {
		if e.Size > 0 {
			s.files = append(s.files, i)
			s.starts = append(s.starts, s.size)
			s.size += e.Size
		}
	}
	return s, nil
}

// each cuts the bytes p at off into the pieces that lie in the listing (file -1)
// or in one file, and calls fn for them in order.
func (s *layout) each(p []byte, off int64, fn func(file int, p []byte, off int64) (int, error)) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		file, from, end := -1, int64(0), int64(len(s.head))
		if at >= end {
			k := sort.Search(len(s.starts), func(i int) bool { return s.starts[i] > at }) - 1
			file, from = s.files[k], s.starts[k]
			end = from + s.list.Entries[file].Size
		}
		k := int(min(int64(len(p)-n), end-at))
		m, err := fn(file, p[n:n+k], at-from)
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// readAt reads from the listing and the files that with opens.
func (s *layout) readAt(with func(file int, fn func(f *os.File) error) error, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("tree: read at %d", off)
	}
	if off >= s.size {
		return 0, io.EOF
	}
	short := int64(len(p)) > s.size-off
	if short {
		p = p[:s.size-off]
	}
	n, err := s.each(p, off, func(file int, p []byte, off int64) (int, error) {
		if file < 0 {
			return copy(p, s.head[off:]), nil
		}
		var n int
		err := with(file, func(f *os.File) (err error) {
			if n, err = f.ReadAt(p, off); errors.Is(err, io.EOF) {
				err = fmt.Errorf("%w: %s is shorter", ErrChanged, s.list.Entries[file].Path)
			}
			return err
		})
		return n, err
	})
	if err == nil && short {
		err = io.EOF
	}
	return n, err
}

// cache holds the files that were used last open.
type cache struct {
	open func(file int) (*os.File, error)

	mu    sync.Mutex // guards all below
	files map[int]*list.Element
	order list.List // of *handle, last used first
}

type handle struct {
	file int
	f    *os.File
	refs int
}

func newCache(open func(file int) (*os.File, error)) *cache {
	return &cache{open: open, files: map[int]*list.Element{}}
}

// with calls fn with an open file, which stays open during fn.
func (c *cache) with(file int, fn func(f *os.File) error) error {
	h, err := c.acquire(file)
	if err != nil {
		return err
	}
	defer c.release(h)
	return fn(h.f)
}

func (c *cache) acquire(file int) (*handle, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.files[file]; ok {
		c.order.MoveToFront(el)
		h := el.Value.(*handle)
		h.refs++
		return h, nil
	}
	f, err := c.open(file)
	if err != nil {
		return nil, err
	}
	h := &handle{file: file, f: f, refs: 1}
	c.files[file] = c.order.PushFront(h)
	if err := c.shrinkLocked(openFiles); err != nil {
		h.refs--
		return nil, err
	}
	return h, nil
}

func (c *cache) release(h *handle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h.refs--
}

// shrinkLocked closes the files used longest ago that nobody uses now, until at
// most limit are open.
func (c *cache) shrinkLocked(limit int) error {
	var first error
	for el := c.order.Back(); el != nil && c.order.Len() > limit; {
		h := el.Value.(*handle)
		next := el.Prev()
		if h.refs == 0 {
			c.order.Remove(el)
			delete(c.files, h.file)
			if err := h.f.Close(); err != nil && first == nil {
				first = fmt.Errorf("tree: %w", err)
			}
		}
		el = next
	}
	return first
}

// closeAll closes every file; none may be in use.
func (c *cache) closeAll() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shrinkLocked(0)
}
