package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"hash/crc32"
	"io"
	"slices"
	"sort"

	"updraft/delta/patch/internal/deflate"
)

// Found is a member that Find found.
type Found struct {
	Member
	Head    [2]byte  // Zlib: what is in front
	Sum     [16]byte // of its packed bytes
	Spool   int64    // where its plain bytes begin in the spool
	ParseAt int64    // where its parse begins in the spool of those
	Units   []Unit   // in which its parse is wanted, if it has one
}

// Unit is a part of a member: so many plain bytes need so much of the parse.
type Unit struct{ Plain, Parse int64 }

const (
	scanPiece = 1 << 20
	headRoom  = 64 // bytes that look reads behind a candidate
	minPacked = 64 // of a deflate stream: smaller ones are not worth it
)

// Find returns the members of src in order, at most limit, and appends their plain
// bytes and parses to spools, which may grow to most bytes together. Of those known, where it shall not look, it takes only places: a
// caller knows what is in them. What looks like a member and is none costs time, of
// which there is an end: a stream full of such is not searched any further.
func Find(ctx context.Context, src Source, known []Member, spools *Spools, limit int, most int64) ([]Found, error) {
	f := &finder{stopped: ctx.Err, src: src, size: src.Size(), spools: spools, buf: make([]byte, scanPiece+headRoom),
		copy: make([]byte, 64<<10), waste: 64<<20 + 2*src.Size(), most: most}
	for off := int64(0); off < f.size && len(f.out) < limit && f.waste > 0; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for len(known) > 0 && known[0].end() <= off {
			known = known[1:]
		}
		f.taken = f.size
		if len(known) > 0 {
			if off >= known[0].Off {
				off = known[0].end()
				continue
			}
			f.taken = known[0].Off
		}
		if end, err := f.block(off); err != nil || end > 0 {
			if err != nil {
				return nil, err
			}
			off = end
			continue
		}
		to := min(f.taken, off+scanPiece)
		b := f.buf[:min(int64(len(f.buf)), f.size-off)]
		if err := readFull(src, b, off); err != nil {
			return nil, err
		}
		next, err := f.scan(b, off, to)
		if err != nil {
			return nil, err
		}
		off = next
	}
	return f.out, nil
}

// finder looks for members.
type finder struct {
	stopped func() error // the context's
	src     Source
	size    int64
	spools  *Spools
	out     []Found
	r       *deflate.Reader
	buf     []byte
	copy    []byte
	taken   int64 // where the next known member is, or the block to look at, or the end
	blocks  []run // that may be members of their own
	most    int64 // bytes of spool
	waste   int64 // plain bytes that may yet be inflated in vain
}

// candidate is what may be a member.
type candidate struct {
	off  int64 // of the deflate stream
	end  int64 // LZ4Block: where it ends
	wrap Wrap
	head [2]byte
	crc  uint32 // zip: of the plain bytes
	zip  bool
	late bool // zip: crc stands behind the stream
}

// frame returns the wrap of the frame that h begins with, if it does.
func frame(h []byte) (Wrap, bool) {
	for w := range wraps {
		if c := codecs[w]; c != nil {
			for _, m := range c.magics {
				if bytes.HasPrefix(h, m) {
					return w, true
				}
			}
		}
	}
	return 0, false
}

// firsts are the bytes that members or what is in front of them begin with.
var firsts = func() (set [256]bool) {
	for _, b := range []byte{0x78, 0x1f, 'P', squashMagic[0], erofsMagic[0]} {
		set[b] = true
	}
	for _, c := range codecs {
		if c != nil {
			for _, m := range c.magics {
				set[m[0]] = true
			}
		}
	}
	return set
}()

// scan looks for a member that begins in front of to; b is what is at off. It returns
// where to go on.
func (f *finder) scan(b []byte, off, to int64) (int64, error) {
	le := binary.LittleEndian
	for i := 0; off+int64(i) < to; i++ {
		if !firsts[b[i]] {
			continue
		}
		h := b[i:]
		at := off + int64(i)
		var c candidate
		switch {
		case len(h) < headRoom/2:
			continue
		case h[0] == 0x78 && (h[1] == 0x01 || h[1] == 0x5e || h[1] == 0x9c || h[1] == 0xda) && h[2]&6 != 6:
			c = candidate{off: at + 2, wrap: Zlib, head: [2]byte(h)}
		case h[0] == 0x1f && h[1] == 0x8b && h[2] == 8 && h[3]&0xe0 == 0:
			n := f.gzipHeader(at, h[3])
			if n == 0 {
				continue
			}
			c = candidate{off: at + n, wrap: Gzip}
		case h[0] == 'P' && h[1] == 'K' && h[2] == 3 && h[3] == 4 && le.Uint16(h[8:]) == 8 && h[6]&1 == 0:
			n := 30 + int64(le.Uint16(h[26:])) + int64(le.Uint16(h[28:]))
			c = candidate{off: at + n, zip: true, crc: le.Uint32(h[14:]), late: h[6]&8 != 0}
		case string(h[:4]) == squashMagic, string(h[:4]) == erofsMagic:
			more, err := f.image(at, string(h[:4]))
			if err != nil || more {
				return at + 1, err
			}
			continue
		default:
			w, ok := frame(h)
			if !ok {
				continue
			}
			c = candidate{off: at, wrap: w}
		}
		end, err := f.try(c)
		if err != nil {
			return 0, err
		}
		if end > 0 {
			return end, nil
		}
	}
	return to, nil
}

// image notes the blocks of the image that has this magic at off; it reports whether to look again:
// for them, or not at all.
func (f *finder) image(off int64, magic string) (bool, error) {
	blocks := squashBlocks
	if magic == erofsMagic {
		blocks = erofsBlocks
	}
	bs, looked, err := blocks(f.stopped, f.src, off)
	f.waste -= looked + 64
	if err != nil || len(bs) == 0 {
		return f.waste <= 0, err
	}
	bs = append(bs, f.blocks...)
	sort.Slice(bs, func(i, j int) bool { return bs[i].off < bs[j].off })
	if bs = slices.Compact(bs); len(bs) > maxBlocks {
		return f.waste <= 0, nil
	}
	f.blocks = bs
	return true, nil
}

// block looks at the block that begins at off, if one does, and returns where it ends, 0 if
// there is none. Others begin at taken or behind that.
func (f *finder) block(off int64) (int64, error) {
	for len(f.blocks) > 0 && f.blocks[0].off <= off {
		b := f.blocks[0]
		f.blocks = f.blocks[1:]
		if b.off < off || b.end > f.taken {
			continue
		}
		if end, err := f.split(candidate{off: off, end: b.end, wrap: LZ4Block}); err != nil || end > 0 {
			return end, err
		}
	}
	if len(f.blocks) > 0 {
		f.taken = min(f.taken, f.blocks[0].off)
	}
	return 0, nil
}

// gzipHeader returns the length of the gzip header at off, or 0.
func (f *finder) gzipHeader(off int64, flags byte) int64 {
	b := make([]byte, min(1<<10, f.size-off))
	if readFull(f.src, b, off) != nil {
		return 0
	}
	n := 10
	if flags&4 != 0 {
		if n+2 > len(b) {
			return 0
		}
		n += 2 + int(binary.LittleEndian.Uint16(b[n:]))
	}
	for _, bit := range []byte{8, 16} { // name, comment
		if flags&bit == 0 {
			continue
		}
		for n < len(b) && b[n] != 0 {
			n++
		}
		n++
	}
	if flags&2 != 0 {
		n += 2
	}
	if n >= len(b) {
		return 0
	}
	return int64(n)
}

// try unpacks what c says, and returns where the member ends, or 0 if it is none.
func (f *finder) try(c candidate) (int64, error) {
	switch {
	case c.off >= f.taken:
		return 0, nil
	case c.wrap.Parsed():
		return f.split(c)
	default:
		return f.inflate(c)
	}
}

// split takes a frame apart.
func (f *finder) split(c candidate) (int64, error) {
	plain, parse := f.spools.Plain, f.spools.Parse
	s := Found{Member: Member{Off: c.off, Wrap: c.wrap}, Spool: plain.Size(), ParseAt: parse.Size()}
	codec := codecs[c.wrap]
	end := f.taken
	if c.end > 0 {
		end = c.end
	}
	n, err := codec.split(f.src, c.off, end, plain, parse, func() error {
		s.Units = append(s.Units, Unit{plain.Size() - s.Spool, parse.Size() - s.ParseAt})
		if plain.Size()+parse.Size() > f.most {
			return errTooMuch
		}
		return f.stopped()
	})
	s.Packed, s.Plain, s.Parse = n, plain.Size()-s.Spool, parse.Size()-s.ParseAt
	switch {
	case err == nil && s.Plain > 0 && s.Packed >= minPacked:
		if err := f.digest(&s); err != nil {
			return 0, err
		}
		f.out = append(f.out, s)
		return s.end(), nil
	case err == nil, errors.Is(err, errTooMuch), codec.isStrange(err):
		f.waste -= s.Plain + 64
		plain.Truncate(s.Spool)
		parse.Truncate(s.ParseAt)
		return 0, nil
	}
	return 0, err
}

// errTooMuch ends a split whose plain bytes are more than there is room for.
var errTooMuch = errors.New("layer: too much")

// inflate inflates what c says.
func (f *finder) inflate(c candidate) (int64, error) {
	if f.r == nil {
		f.r = deflate.NewReader(f.src, c.off, f.size)
	} else {
		f.r.Reset(f.src, c.off, f.size)
	}
	sum := crc32.NewIEEE()
	if c.wrap == Zlib {
		sum = adler32.New()
	}
	start := f.spools.Plain.Size()
	plain := int64(0)
	for {
		n, err := f.r.Read(f.copy)
		plain += int64(n)
		if n > 0 && (err == nil || errors.Is(err, io.EOF)) {
			sum.Write(f.copy[:n])
			if _, err := f.spools.Plain.Write(f.copy[:n]); err != nil {
				return 0, err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, deflate.ErrFormat) || f.spools.Size() > f.most {
			return 0, f.drop(start, plain)
		}
		if err == nil {
			err = f.stopped()
		}
		if err != nil {
			return 0, err
		}
	}
	end := f.r.Offset()
	if plain == 0 || end-c.off < minPacked || !f.right(c, end, sum.Sum32(), plain) {
		return 0, f.drop(start, plain)
	}
	m := Member{Off: c.off - c.wrap.front(), Plain: plain, Wrap: c.wrap}
	m.Packed = end + c.wrap.back() - m.Off
	s := Found{Member: m, Head: c.head, Spool: start}
	if err := f.digest(&s); err != nil {
		return 0, err
	}
	f.out = append(f.out, s)
	return m.end(), nil
}

// drop forgets plain bytes that came of no member.
func (f *finder) drop(start, plain int64) error {
	f.spools.Plain.Truncate(start)
	f.waste -= plain + 64
	return nil
}

// right reports whether what stands behind the stream that ends at end, or for zip in
// front of it, goes with its plain bytes.
func (f *finder) right(c candidate, end int64, sum uint32, plain int64) bool {
	if c.zip && !c.late {
		return c.crc == sum
	}
	var b [8]byte
	tail := b[:8]
	if c.wrap == Zlib {
		tail = b[:4]
	}
	if readFull(f.src, tail, end) != nil {
		return false
	}
	switch le := binary.LittleEndian; {
	case c.wrap == Zlib:
		return binary.BigEndian.Uint32(tail) == sum
	case c.zip:
		return le.Uint32(tail) == sum || le.Uint32(tail) == 0x08074b50 && le.Uint32(tail[4:]) == sum
	default:
		return le.Uint32(tail) == sum && le.Uint32(tail[4:]) == uint32(plain)
	}
}

func (f *finder) digest(s *Found) error {
	h := sha256.New()
	for off := s.Off; off < s.end(); {
		b := f.copy[:min(int64(len(f.copy)), s.end()-off)]
		if err := readFull(f.src, b, off); err != nil {
			return fmt.Errorf("layer: digest: %w", err)
		}
		h.Write(b)
		off += int64(len(b))
	}
	copy(s.Sum[:], h.Sum(nil))
	return nil
}
