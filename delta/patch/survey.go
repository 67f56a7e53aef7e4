package patch

import (
	"context"
	"encoding/binary"
	"sort"
)

const (
	// sameLen is how long a run of the base has to come again, bit by bit, to be
	// looked at no further: a copy that nothing else will be made from.
	sameLen = 8 << 10
	// markBits: of so many bits of a hash, all 0, a place is remembered.
	markBits = 8
	// markLen is how much has to agree at such a place.
	markLen = 64
)

// span is old[lo:hi].
type span struct{ lo, hi int }

// survey returns runs of old that fresh has as they are, in order and apart from each
// other. It finds the long ones in one pass, with little memory; few of them wrongly
// missed cost time and memory later, nothing else.
func survey(ctx context.Context, old []byte, fresh *window) ([]span, error) {
	m := marks(old)
	var out []span
	for i := 0; i < fresh.size; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// Matches go beyond the window; the look for them does not.
		b, err := fresh.from(i)
		if err != nil {
			return nil, err
		}
		if len(b) < markLen && fresh.hi() < fresh.size {
			if err := fresh.move(i); err != nil {
				return nil, err
			}
			continue
		}
		k, at := m.find(b)
		if k < 0 {
			i += max(len(b)-seedLen+1, 1)
			continue
		}
		i += k
		n, err := agree(old[at:], fresh, i)
		if err != nil {
			return nil, err
		}
		if n >= sameLen {
			out = append(out, span{at, at + n})
		}
		i += max(n, 1)
	}
	return joined(out), nil
}

// agree returns how many bytes at i of fresh are as in old.
func agree(old []byte, fresh *window, i int) (int, error) {
	n := 0
	for n < len(old) && i+n < fresh.size {
		b, err := fresh.from(i + n)
		if err != nil {
			return n, err
		}
		l := common(old[n:], b)
		if n += l; l < len(b) {
			break
		}
	}
	return n, nil
}

// joined returns spans in order, and as one where they meet.
func joined(in []span) []span {
	sort.Slice(in, func(i, j int) bool { return in[i].lo < in[j].lo })
	var out []span
	for _, s := range in {
		if n := len(out) - 1; n >= 0 && s.lo <= out[n].hi {
			out[n].hi = max(out[n].hi, s.hi)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// marked are places of the base that their own bytes choose, so that the same bytes
// elsewhere choose theirs alike.
type marked struct {
	old []byte
	at  []uint32 // by hash: place+1
}

func marks(old []byte) *marked {
	n := 1 << 10
	for n < len(old)>>markBits {
		n *= 2
	}
	m := &marked{old: old, at: make([]uint32, n)}
	for i := 0; i+markLen <= len(old); i++ {
		if h, ok := mark(old[i:]); ok {
			m.at[h&uint64(n-1)] = uint32(i + 1)
		}
	}
	return m
}

// mark reports whether the place in front of b is one, and its hash.
func mark(b []byte) (uint64, bool) {
	w := binary.LittleEndian.Uint64(b)
	h := w * 0x9E3779B97F4A7C15
	return h >> 16, h>>(64-markBits) == 0 && w != 0
}

// find returns the first place in b that the base has as well, and where; -1: none.
func (m *marked) find(b []byte) (k, at int) {
	for k := 0; k+seedLen <= len(b); k++ {
		h, ok := mark(b[k:])
		if !ok {
			continue
		}
		if at := int(m.at[h&uint64(len(m.at)-1)]) - 1; at >= 0 && common(m.old[at:], b[k:]) >= min(markLen, len(b)-k) {
			return k, at
		}
	}
	return -1, 0
}
