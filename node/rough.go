package node

import "bytes"

// sameBlock is how much is compared at once with what is on the disk already.
const sameBlock = 32 << 10

// writeAt writes b at off of the stream, but for blocks that are there already: a rebuild
// that was given up, or the run before, has written much for which others bring chunks
// now, or which the next rebuild makes again.
func (a *assembly) writeAt(b []byte, off int64) error {
	a.mu.Lock()
	r := a.rough
	a.mu.Unlock()
	differ := len(b) // bytes from the front of b that are to be written
	// Before a tree is open, its contents are not in their places: what reads as zeros may be nothing.
	placed := a.opened.Load() || off+int64(len(b)) <= a.art.ListingSize
	if placed && off < r.off+r.n && off+int64(len(b)) > r.off {
		differ = 0
		old := make([]byte, min(sameBlock, len(b)))
		for differ < len(b) {
			part := b[differ:min(differ+sameBlock, len(b))]
			n, _ := a.st.ReadAt(old[:len(part)], off+int64(differ)) // what cannot be read is written
			if n < len(part) || !bytes.Equal(old[:n], part) {
				differ += len(part)
				continue
			}
			if err := a.writeAll(b[:differ], off); err != nil {
				return err
			}
			skip := differ + len(part)
			b, off, differ = b[skip:], off+int64(skip), 0
		}
	}
	return a.writeAll(b[:differ], off)
}

// writeAll writes b, if it is not empty, at once.
func (a *assembly) writeAll(b []byte, off int64) error {
	if len(b) == 0 {
		return nil
	}
	_, err := a.st.WriteAt(b, off)
	return err
}

// loose notes that a rebuild wrote the bytes from off to end.
func (a *assembly) loose(off, end int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := &a.rough; r.n == 0 {
		*r = span{off, end - off}
	} else {
		from := min(r.off, off)
		*r = span{from, max(r.off+r.n, end) - from}
	}
}
