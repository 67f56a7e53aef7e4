package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"updraft/delta/release"
	"updraft/swarm"
)

// patchFile is a patch on its way through this device, in a file of its own: the
// Blobs of the patch's object, and what the decoder reads while blocks arrive.
type patchFile struct {
	p  *release.Patch
	f  *os.File
	id [32]byte // of its object

	mu     sync.Mutex // guards have, left, change
	have   []bool
	change chan struct{} // closed at the next block
}

// openPatch opens the patch's file at path, keeping the blocks it holds.
func openPatch(path string, p *release.Patch) (*patchFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("node: open patch file: %w", err)
	}
	n := p.BlockCount()
	pf := &patchFile{p: p, f: f, have: make([]bool, n), change: make(chan struct{})}
	var buf []byte
	for i := range n {
		b, err := pf.Get(i, buf)
		if err == nil && sha256.Sum256(b) == pf.sum(i) {
			pf.have[i] = true
		}
		buf = b
	}
	pf.id = pf.object().ID
	return pf, nil
}

func (pf *patchFile) sum(i int) [32]byte {
	if len(pf.p.Blocks) == 0 {
		return pf.p.Sum
	}
	return pf.p.Blocks[i]
}

func (pf *patchFile) size(i int) int {
	return int(min(int64(pf.p.BlockSize), pf.p.Size-int64(i)*int64(pf.p.BlockSize)))
}

func (pf *patchFile) object() swarm.Object {
	o := swarm.Object{Priority: 1}
	for i := range pf.have {
		o.Sums = append(o.Sums, pf.sum(i))
		o.Sizes = append(o.Sizes, uint32(pf.size(i)))
	}
	o.ID = tableID("patch", o)
	return o
}

// Has implements swarm.Blobs.
func (pf *patchFile) Has(i int) bool {
	pf.mu.Lock()
	defer pf.mu.Unlock()
	return pf.have[i]
}

// Get implements swarm.Blobs.
func (pf *patchFile) Get(i int, buf []byte) ([]byte, error) {
	n := pf.size(i)
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := pf.f.ReadAt(buf, int64(i)*int64(pf.p.BlockSize)); err != nil {
		return buf, fmt.Errorf("node: read patch block: %w", err)
	}
	return buf, nil
}

// Put implements swarm.Blobs.
func (pf *patchFile) Put(i int, data []byte) error {
	if _, err := pf.f.WriteAt(data, int64(i)*int64(pf.p.BlockSize)); err != nil {
		return fmt.Errorf("node: write patch block: %w", err)
	}
	pf.mu.Lock()
	defer pf.mu.Unlock()
	if !pf.have[i] {
		pf.have[i] = true
		close(pf.change)
		pf.change = make(chan struct{})
	}
	return nil
}

// patchReader reads a patch for a decoder: it waits for blocks that have not
// come yet.
type patchReader struct {
	pf    *patchFile
	done  <-chan struct{} // ends the waiting; a decoder's reads carry no context
	cause func() error    // why done was closed
}

func (pf *patchFile) reader(ctx context.Context) patchReader {
	return patchReader{pf, ctx.Done(), func() error { return context.Cause(ctx) }}
}

// Size implements patch.Source.
func (r patchReader) Size() int64 { return r.pf.p.Size }

// ReadAt implements io.ReaderAt.
func (r patchReader) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 || off > r.pf.p.Size {
		return 0, errors.New("node: read outside the patch")
	}
	end := min(off+int64(len(b)), r.pf.p.Size)
	for i := int(off / int64(r.pf.p.BlockSize)); int64(i)*int64(r.pf.p.BlockSize) < end; i++ {
		if err := r.pf.wait(i, r.done, r.cause); err != nil {
			return 0, err
		}
	}
	n, err := r.pf.f.ReadAt(b[:end-off], off)
	if err == nil && n < len(b) {
		err = io.EOF // nothing beyond the patch is read, even if its file is longer
	}
	return n, err
}

func (pf *patchFile) wait(i int, done <-chan struct{}, cause func() error) error {
	for {
		pf.mu.Lock()
		ok, change := pf.have[i], pf.change
		pf.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-change:
		case <-done:
			return cause()
		}
	}
}
