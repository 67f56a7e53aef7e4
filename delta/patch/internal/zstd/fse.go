package zstd

import "math/bits"

// Limits of the tables of states (RFC 8878, 3.1.1.3.2.1).
const (
	minStateLog = 5
	maxStateLog = 9
	maxSymbols  = 53
)

// state is what decoding in a state gives: a symbol, and the next state as a base to
// which the given number of bits is added.
type state struct {
	base   uint16
	symbol uint8
	bits   uint8
}

// transition leads the encoder from a state to one that decodes to a symbol.
type transition struct {
	bits uint32 // (bits written << 16) - the first state that writes so many
	find int32  // index of the symbol's first state among all next, less its states
}

// stateTable is a finite state entropy code: of its states, one for each share of a
// symbol in 1<<log, in both directions.
type stateTable struct {
	log     uint8
	symbols int
	norm    [maxSymbols]int16 // shares; -1: less than one
	spread  [1 << maxStateLog]uint8
	first   [maxSymbols]uint16 // lowest state of each symbol: where encoders begin
	dec     [1 << maxStateLog]state
	next    [1 << maxStateLog]uint16
	enc     [maxSymbols]transition
}

// setOne makes the table of a single symbol, which takes no bits.
func (t *stateTable) setOne(symbol uint8) {
	t.log, t.symbols = 0, int(symbol)+1
	t.norm = [maxSymbols]int16{}
	t.norm[symbol] = 1
	t.build()
}

// setNorm makes the table of the shares given, which add up to 1<<log.
func (t *stateTable) setNorm(log uint8, norm []int16) {
	t.log, t.symbols = log, len(norm)
	t.norm = [maxSymbols]int16{}
	copy(t.norm[:], norm)
	t.build()
}

// read reads the description of a table (RFC 8878, 4.1.1) at the beginning of b, and
// returns its length.
func (t *stateTable) read(b []byte, maxLog uint8, symbols int) (int, bool) {
	f := forward{b: b}
	t.log = uint8(f.peek(4)) + minStateLog
	if t.log > maxLog {
		return 0, false
	}
	f.pos = 4
	t.norm = [maxSymbols]int16{}
	left, at, width := 1<<t.log, 0, t.log+1
	for left > 0 && at < symbols {
		// Shares of up to left+1 values: the lower ones take one bit less.
		threshold := 1 << (width - 1)
		short := 2*threshold - 2 - left
		v := f.peek(width - 1)
		if v < short {
			f.pos += int(width) - 1
		} else {
			if v = f.peek(width); v >= threshold {
				v -= short
			}
			f.pos += int(width)
		}
		t.norm[at] = int16(v - 1)
		at++
		left -= max(v-1, 1-v)
		if v == 1 {
			for run := 3; run == 3 && at <= symbols; at += run {
				run = f.peek(2)
				f.pos += 2
			}
		}
		for left >= 0 && left+1 < 1<<(width-1) {
			width--
		}
	}
	n, ok := f.bytes()
	if !ok || left != 0 || at > symbols {
		return 0, false
	}
	t.symbols = at
	t.build()
	return n, true
}

// build spreads symbols over states (RFC 8878, 4.1.1), and makes both directions.
func (t *stateTable) build() {
	size := 1 << t.log
	t.place(size)
	var seen [maxSymbols]uint16 // next value of each symbol, from its share up
	begin := uint16(0)
	var fill [maxSymbols]uint16
	for s, n := range t.norm[:t.symbols] {
		t.first[s] = noState
		if n == 0 {
			continue
		}
		share := uint32(max(n, 1))
		seen[s], fill[s] = uint16(share), begin
		most := uint32(t.log)
		if share > 1 {
			most -= uint32(bits.Len32(share-1)) - 1
		}
		t.enc[s] = transition{bits: most<<16 - share<<most, find: int32(begin) - int32(share)}
		begin += uint16(share)
	}
	for u := range size {
		s := t.spread[u]
		if t.first[s] == noState {
			t.first[s] = uint16(u)
		}
		t.next[fill[s]&(1<<maxStateLog-1)] = uint16(size + u)
		fill[s]++
		v := seen[s]
		seen[s]++
		n := t.log + 1 - uint8(bits.Len16(v))
		t.dec[u] = state{symbol: s, bits: n, base: v<<n - uint16(size)}
	}
}

const noState = 1<<16 - 1

// place says which symbol each of size states stands for.
func (t *stateTable) place(size int) {
	high := size - 1
	for s, n := range t.norm[:t.symbols] {
		if n < 0 {
			t.spread[high] = uint8(s)
			high--
		}
	}
	at, step := 0, size>>1+size>>3+3
	for s, n := range t.norm[:t.symbols] {
		for range max(n, 0) {
			t.spread[at] = uint8(s)
			for at = (at + step) & (size - 1); at > high && high >= 0; {
				at = (at + step) & (size - 1)
			}
		}
	}
}

// has reports whether the table has a state for the symbol.
func (t *stateTable) has(symbol uint8) bool {
	return int(symbol) < t.symbols && t.norm[symbol] != 0
}

// step writes what leads from the state at (above 1<<log) to one of the symbol.
func (t *stateTable) step(w *bitWriter, at uint32, symbol uint8) uint32 {
	e := t.enc[symbol]
	n := (at + e.bits) >> 16
	w.add(uint64(at&(1<<n-1)), uint8(n))
	return uint32(t.next[(int32(at>>n)+e.find)&(1<<maxStateLog-1)])
}

// Tables that need no description (RFC 8878, appendix A).
var (
	predefinedLL, predefinedOF, predefinedML = predefined()
)

func predefined() (ll, of, ml *stateTable) {
	ll, of, ml = new(stateTable), new(stateTable), new(stateTable)
	ll.setNorm(6, []int16{4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1})
	of.setNorm(5, []int16{1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1})
	ml.setNorm(6, []int16{1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1})
	return ll, of, ml
}
