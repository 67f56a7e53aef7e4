package layer

import (
	"bytes"
	"encoding/binary"
	"errors"

	"updraft/delta/patch/internal/lz4"
)

// Images of squashfs 4 that are packed with lz4 have blocks that nothing marks: what has their
// sizes are inodes and tables, which are packed themselves. What is found here is where blocks
// may be; whether they are is seen when they are taken apart.

const (
	squashMagic = "hsqs"
	squashSuper = 96
	squashLZ4   = 5    // the compressor's number
	metaPlain   = 8192 // plain bytes of a metadata block
	maxInodes   = 64 << 20
	maxBlocks   = 1 << 20

	storedMeta  = 1 << 15 // of the size of a metadata block
	storedBlock = 1 << 24 // of that of another
	noFragment  = 1<<32 - 1
	exportable  = 1 << 7 // among the flags of an image
)

// run is a part of a stream.
type run struct{ off, end int64 }

// squash is an image that blocks are looked for in.
type squash struct {
	stopped func() error // the context's
	src     Source
	at      int64  // where it begins
	super   []byte // its first bytes
	blocks  []run
	inodes  bytes.Buffer // plain bytes of the inodes
	entries bytes.Buffer // and of the entries of fragments
	walked  int64        // packed bytes of metadata
}

var errNoImage = errors.New("layer: no image")

// squashBlocks returns the blocks of the image that begins at off of src, in any order and
// some of them twice, or none, and how many bytes it looked at, packed, plain and as blocks.
func squashBlocks(stopped func() error, src Source, off int64) (blocks []run, looked int64, err error) {
	q := &squash{stopped: stopped, src: src, at: off, super: make([]byte, squashSuper)}
	if src.Size()-off < squashSuper {
		return nil, 0, nil
	}
	if err := readFull(src, q.super, off); err != nil {
		return nil, 0, err
	}
	if !bytes.HasPrefix(q.super, []byte(squashMagic)) || q.half(20) != squashLZ4 || q.half(28) != 4 || q.word(12) < 4096 || q.word(12) > 1<<20 ||
		q.long(40) > src.Size()-off || q.long(64) < squashSuper || q.long(64) > q.long(72) || q.long(72) > q.long(40) {
		return nil, 0, nil
	}
	if err = q.metadata(); errors.Is(err, errNoImage) {
		return nil, q.looked(), nil
	} else if err != nil {
		return nil, 0, err
	}
	for b := q.entries.Bytes(); len(b) >= 16; b = b[16:] {
		q.data(int64(binary.LittleEndian.Uint64(b)), b[8:12])
	}
	for b := q.inodes.Bytes(); b != nil; {
		b = q.inode(b)
	}
	return q.blocks, q.looked(), nil
}

// looked returns how many bytes were looked at, with those that the blocks take here.
func (q *squash) looked() int64 {
	return q.walked + int64(q.inodes.Len()+q.entries.Len()+len(q.blocks)*32)
}

func (q *squash) half(at int) uint16 { return binary.LittleEndian.Uint16(q.super[at:]) }
func (q *squash) word(at int) int64  { return int64(binary.LittleEndian.Uint32(q.super[at:])) }

// long returns a place, or a number that none is below.
func (q *squash) long(at int) int64 {
	return int64(min(binary.LittleEndian.Uint64(q.super[at:]), 1<<62))
}

// metadata reads the blocks of metadata, which follow one another, but for tables of
// their places, from the inodes to the end of the image.
func (q *squash) metadata() error {
	tables, fragments, err := q.tables()
	if err != nil {
		return err
	}
	var head [2]byte
	for at, end := q.long(64), q.long(40); at < end; {
		if n := tables[at]; n > 0 {
			at += n
			continue
		}
		if end-at < 2 {
			return errNoImage
		}
		if err := readFull(q.src, head[:], q.at+at); err != nil {
			return err
		}
		size := binary.LittleEndian.Uint16(head[:])
		n := int64(size &^ storedMeta)
		if n == 0 || n > metaPlain || n > end-at-2 {
			return errNoImage
		}
		b := run{q.at + at + 2, q.at + at + 2 + n}
		var to *bytes.Buffer
		switch {
		case at < q.long(72):
			to = &q.inodes
		case at >= fragments && at < q.long(80):
			to = &q.entries
		}
		if err := q.read(b, size&storedMeta != 0, to); err != nil {
			return err
		}
		at += 2 + n
		q.walked += 2 + n
	}
	return nil
}

// tables returns where tables of places are, with their lengths, and the first place among
// those of fragments.
func (q *squash) tables() (tables map[int64]int64, fragments int64, err error) {
	tables, fragments = map[int64]int64{}, 1<<62
	add := func(at, entries, size int64) {
		if at < q.long(40) && entries > 0 {
			tables[at] = (entries*size + metaPlain - 1) / metaPlain * 8
		}
	}
	add(q.long(48), int64(q.half(26)), 4)
	add(q.long(80), q.word(16), 16)
	if q.half(24)&exportable != 0 {
		add(q.long(88), q.word(4), 8)
	}
	var b [16]byte
	if at := q.long(56); at < q.long(40)-int64(len(b)) { // extended attributes
		if err := readFull(q.src, b[:], q.at+at); err != nil {
			return nil, 0, err
		}
		add(at, int64(binary.LittleEndian.Uint32(b[8:])), 16)
		tables[at] += int64(len(b))
	}
	if at := q.long(80); tables[at] > 0 && at < q.long(40)-8 {
		if err := readFull(q.src, b[:8], q.at+at); err != nil {
			return nil, 0, err
		}
		fragments = int64(binary.LittleEndian.Uint64(b[:]) & (1<<62 - 1))
	}
	return tables, fragments, nil
}

// read notes a block of metadata, and appends its plain bytes to to, if that is not nil.
func (q *squash) read(b run, stored bool, to *bytes.Buffer) error {
	if err := q.stopped(); err != nil {
		return err
	}
	if len(q.blocks) >= maxBlocks {
		return errNoImage
	}
	if !stored {
		q.blocks = append(q.blocks, b)
	}
	if to == nil {
		return nil
	}
	n := to.Len()
	if n > maxInodes {
		return errNoImage
	}
	if stored {
		to.Write(make([]byte, b.end-b.off))
		return readFull(q.src, to.Bytes()[n:], b.off)
	}
	err := lz4.SplitBlock(q.src, b.off, b.end, to, nil, nil)
	if codecs[LZ4Block].isStrange(err) || to.Len()-n > metaPlain {
		return errNoImage
	}
	return err
}

// data notes the blocks of these sizes, the first of which begins at off.
func (q *squash) data(off int64, sizes []byte) {
	for ; len(sizes) >= 4; sizes = sizes[4:] {
		size := binary.LittleEndian.Uint32(sizes)
		n := int64(size &^ storedBlock)
		if off < squashSuper || n > q.word(12) || n > q.long(64)-off || len(q.blocks) > maxBlocks {
			return
		}
		if n > 0 && size&storedBlock == 0 { // 0: a hole
			q.blocks = append(q.blocks, run{q.at + off, q.at + off + n})
		}
		off += n
	}
}

// inodeSizes are of inodes by their kind, without what varies.
var inodeSizes = [15]int{1: 32, 2: 32, 3: 24, 4: 24, 5: 24, 6: 20, 7: 20, 8: 40, 9: 56, 10: 28, 11: 28, 12: 28, 13: 24, 14: 24}

// inode reads the inode that b begins with, and returns what is behind it; nil: nothing,
// or what is none.
func (q *squash) inode(b []byte) []byte {
	le := binary.LittleEndian
	if len(b) < 16 {
		return nil
	}
	kind := le.Uint16(b)
	if int(kind) >= len(inodeSizes) || inodeSizes[kind] == 0 || len(b) < inodeSizes[kind] {
		return nil
	}
	n := inodeSizes[kind]
	switch kind {
	case 2:
		return q.file(b[n:], int64(le.Uint32(b[16:])), int64(le.Uint32(b[28:])), le.Uint32(b[20:]))
	case 9:
		return q.file(b[n:], int64(le.Uint64(b[16:])&(1<<62-1)), int64(le.Uint64(b[24:])&(1<<62-1)), le.Uint32(b[44:]))
	case 3, 10: // symbolic links
		n += int(min(le.Uint32(b[20:]), 1<<16))
	case 8: // a directory with an index
		for range le.Uint16(b[32:]) {
			if len(b) < n+12 {
				return nil
			}
			n += 12 + int(le.Uint32(b[n+8:])&0xffff) + 1
		}
	}
	if len(b) < n {
		return nil
	}
	return b[n:]
}

// file reads the sizes of a file's blocks, which b begins with.
func (q *squash) file(b []byte, at, size int64, fragment uint32) []byte {
	blocks := size / q.word(12)
	if fragment == noFragment && size%q.word(12) > 0 {
		blocks++
	}
	if blocks > int64(len(b)/4) {
		return nil
	}
	q.data(at, b[:4*blocks])
	return b[4*blocks:]
}
