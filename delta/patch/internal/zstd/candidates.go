package zstd

import (
	"encoding/binary"

	"updraft/delta/patch/internal/parse"
)

// What a compressor that looks well takes is most often the longest match there is, or
// one that is nearer than all as long. So an offset is told as an index among these.
const (
	near    = parse.Near // how far back candidates are looked for
	tries   = 16         // places that are looked at, and one that has three bytes in common
	enough  = 256        // bytes in common behind which nothing longer is looked for
	longest = 2048       // bytes in common that are counted of the one that is taken

	threeBits = 14
	fourBits  = parse.ChainBits
)

// finder finds candidates. Its places count from near at the beginning of a frame, so
// that 0, none, is too far from all, and wrap.
type finder struct {
	b     []byte // history, and the bytes at hand
	first uint32 // the place of b[0]
	next  uint32 // the first place that has not been entered

	three [1 << threeBits]uint32 // the last place of each hash of three bytes
	four  parse.Chain            // of four

	found  [tries + 1]uint32 // distances, the nearest first, each longer than those in front
	recent recent
}

// reset begins a frame.
func (f *finder) reset() {
	clear(f.three[:])
	f.four.Reset()
	f.recent = recent{1, 4, 8}
	f.next = near
}

// set gives the bytes of a block behind history; the frame had total bytes before it.
func (f *finder) set(b []byte, history int, total uint64) {
	f.b, f.first = b, near+uint32(total)-uint32(history)
}

// enter enters what is in front of b[end], unless it is not followed by three bytes.
func (f *finder) enter(end int) {
	b := f.b
	end = min(end, len(b)-3)
	for i := int(int32(f.next - f.first)); i < end; i++ {
		v := binary.LittleEndian.Uint32(b[i:])
		f.three[v<<8*hashing>>(32-threeBits)] = f.next
		f.four.Enter(v*hashing>>(32-fourBits), f.next)
		f.next++
	}
}

// hashing spreads bytes: the golden ratio of 32 bits.
const hashing = 2654435769

// common returns how many bytes from i on are those from i-d on, at most most.
func (f *finder) common(i int, d uint32, most int) int {
	return parse.Agree(f.b[i-int(d):], f.b[i:], most)
}

// find looks for candidates at i and returns how many it found.
func (f *finder) find(i int) int {
	b := f.b
	room := min(len(b)-i, enough)
	if room < 4 {
		return 0
	}
	v := binary.LittleEndian.Uint32(b[i:])
	at := f.first + uint32(i)
	n, best := 0, 2
	if d := at - f.three[v<<8*hashing>>(32-threeBits)]; d <= near && int(d) <= i && d > 0 && (binary.LittleEndian.Uint32(b[i-int(d):])^v)<<8 == 0 {
		if l := f.common(i, d, room); l > best {
			f.found[0], best, n = d, l, 1
		}
	}
	if best >= room {
		return n
	}
	d, want := at-f.four.Last(v*hashing>>(32-fourBits)), b[i+best]
	for k := 0; k < tries && d <= near && int(d) <= i; k++ {
		c := i - int(d)
		if b[c+best] == want && binary.LittleEndian.Uint32(b[c:]) == v {
			if l := f.common(i, d, room); l > best {
				f.found[n], best = d, l
				n++
				if best >= room {
					break
				}
				want = b[i+best]
			}
		}
		step := f.four.Step(at - d)
		if step == 0 {
			break
		}
		d += step
	}
	return n
}

// spare returns how long a match at i can be, unless that is longest or more, or more
// than is at hand.
func (f *finder) spare(i int, d uint32) (length int, ok bool) {
	if d == 0 || d > near || int(d) > i {
		return 0, false
	}
	most := min(len(f.b)-i, longest)
	length = f.common(i, d, most)
	return length, length < longest
}

// recent are the distances used last.
type recent [3]uint32

// use resolves an offset as coded: 0 if there is none such.
func (r *recent) use(offset uint32, noRun bool) uint32 {
	if offset > 3 {
		*r = recent{offset - 3, r[0], r[1]}
		return r[0]
	}
	i := offset - 1
	if noRun {
		i++
	}
	switch i {
	case 1:
		*r = recent{r[1], r[0], r[2]}
	case 2:
		*r = recent{r[2], r[0], r[1]}
	case 3:
		*r = recent{r[0] - 1, r[0], r[1]}
	}
	return r[0]
}

// offset returns how a distance is expected to be coded.
func (r *recent) offset(d uint32, noRun bool) uint32 {
	one, two, three := r[0], r[1], r[2]
	if noRun {
		one, two, three = two, three, one-1
	}
	switch d {
	case one:
		return 1
	case two:
		return 2
	case three:
		return 3
	}
	return d + 3
}

// tell turns an offset as coded, and the length of the match at i, to a choice and what
// the length lacks.
func (f *finder) tell(i int, offset uint32, match int, noRun bool) (choice uint32, lacks int) {
	was := f.recent
	d := f.recent.use(offset, noRun)
	choice = offset
	if was.offset(d, noRun) == offset {
		n := f.find(i)
		for k := range n {
			if f.found[n-1-k] == d {
				choice = candidate | uint32(k)
			}
		}
	}
	if length, ok := f.spare(i, d); ok {
		return choice, length - match
	}
	return choice, match - 3
}

// resolve is tell the other way.
func (f *finder) resolve(i int, choice uint32, lacks int, noRun bool) (offset uint32, match int, ok bool) {
	offset = choice
	if choice&candidate != 0 {
		n, k := f.find(i), int(choice&^candidate)
		if k >= n {
			return 0, 0, false
		}
		offset = f.recent.offset(f.found[n-1-k], noRun)
	}
	d := f.recent.use(offset, noRun)
	if length, ok := f.spare(i, d); ok {
		return offset, length - lacks, length-lacks >= 3
	}
	return offset, lacks + 3, d > 0
}

// candidate marks choices that are an index, from the longest.
const candidate = 1 << 24
