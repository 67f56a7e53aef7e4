package zstd

import "math/bits"

// rounding has from which fraction on (of 2^20) a share below 8 is rounded up.
var rounding = [8]uint64{0, 473195, 504333, 520860, 550000, 700000, 750000, 830000}

// shares gives each counted symbol its part of 1<<log as libzstd does, the rare ones one
// state, or less than one (-1) if low is set. False: they have none.
func shares(norm *[maxSymbols]int16, counts []uint32, total uint32, log uint8, low bool) bool {
	one := int16(1)
	if low {
		one = -1
	}
	*norm = [maxSymbols]int16{}
	scale := 62 - log
	step := uint64(1) << 62 / uint64(total)
	left, largest := 1<<log, 0
	most := int16(0)
	for s, c := range counts {
		switch {
		case c == total:
			return false
		case c == 0:
		case c <= total>>log:
			norm[s] = one
			left--
		default:
			v := uint64(c) * step
			n := v >> scale
			if n < 8 && v-n<<scale > rounding[n]<<(scale-20) {
				n++
			}
			norm[s] = int16(n)
			left -= int(n)
			if norm[s] > most {
				most, largest = norm[s], s
			}
		}
	}
	if -left >= int(norm[largest]>>1) {
		return sharesEvenly(norm, counts, total, log, one)
	}
	norm[largest] += int16(left)
	return true
}

// open marks a symbol that has no share yet.
const open = -2

// sharesEvenly is what libzstd does if too much has been rounded up.
func sharesEvenly(norm *[maxSymbols]int16, counts []uint32, total uint32, log uint8, one int16) bool {
	least, few := total>>log, total*3>>(log+1)
	given := uint32(0)
	for s, c := range counts {
		switch {
		case c == 0:
			continue
		case c <= least:
			norm[s] = one
		case c <= few:
			norm[s] = 1
		default:
			norm[s] = open
			continue
		}
		given++
		total -= c
	}
	left := uint32(1)<<log - given
	if given > 1<<log || left == 0 || total == 0 {
		return given == 1<<log && total == 0
	}
	if total/left > few {
		few = total * 3 / (left * 2)
		for s, c := range counts {
			if norm[s] == open && c <= few {
				norm[s] = 1
				given++
				total -= c
			}
		}
		left = 1<<log - given
	}
	if given == uint32(len(counts)) || total == 0 || left > 1<<log {
		return false // seen nowhere: the description is given then
	}
	at := uint64(1)<<(61-log) - 1
	step := (uint64(left)<<(62-log) + at) / uint64(total)
	for s, c := range counts {
		if norm[s] == open {
			next := at + uint64(c)*step
			n := next>>(62-log) - at>>(62-log)
			if n == 0 {
				return false
			}
			norm[s] = int16(n)
			at = next
		}
	}
	return true
}

// appendShares writes the description of a table, false if the shares are not 1<<log.
func appendShares(p []byte, norm []int16, log uint8) ([]byte, bool) {
	var b [128]byte
	w := bitWriter{b: b[:]}
	w.add(uint64(log-minStateLog), 4)
	left, width := 1<<log, log+1
	for s := 0; s < len(norm) && left > 0; {
		n := int(norm[s])
		s++
		short := 2<<(width-1) - 2 - left
		v, size := n+1, width
		left -= max(n, -n)
		if left < 0 {
			return nil, false
		}
		if v < short {
			size--
		} else if v >= 1<<(width-1) {
			v += short
		}
		w.add(uint64(v), size)
		w.flush()
		if n == 0 {
			run := 0
			for s < len(norm) && norm[s] == 0 {
				run++
				s++
			}
			for ; run >= 3; run -= 3 {
				w.add(3, 2)
				w.flush()
			}
			w.add(uint64(run), 2)
			w.flush()
		}
		for left+1 < 1<<(width-1) {
			width--
		}
	}
	if w.cnt > 0 {
		w.n++
	}
	return append(p, b[:w.n]...), left == 0
}

// tableLog returns which log libzstd gives a table of n symbols.
func tableLog(most uint8, n int, symbols int) uint8 {
	log := min(most, uint8(bits.Len32(uint32(n-1)))-3)
	log = max(log, min(uint8(bits.Len32(uint32(n))), uint8(bits.Len32(uint32(symbols-1)))+1))
	return max(log, minStateLog)
}

// lowBit marks, beside the log of a table, that rare symbols have less than one state.
const lowBit = 1 << 7

// expectTable describes the table that libzstd makes of these codes, of which last is
// the last one's: that one does not count, since it takes no bits. how is the log with
// lowBit.
func expectTable(p []byte, counts [maxSymbols]uint32, total uint32, last, how uint8) ([]byte, bool) {
	log := how &^ lowBit
	if log < minStateLog || log > maxStateLog {
		return nil, false
	}
	if counts[last] > 1 {
		counts[last]--
		total--
	}
	n := maxSymbols
	for counts[n-1] == 0 {
		n--
	}
	var norm [maxSymbols]int16
	if !shares(&norm, counts[:n], total, log, how&lowBit != 0) {
		return nil, false
	}
	return appendShares(p, norm[:n], log)
}

// countCodes counts the codes of one kind of the n sequences in b.
func countCodes(b []byte, n, kind int) (counts [maxSymbols]uint32) {
	for k := range n {
		counts[at(b, k).code(kind)]++
	}
	return counts
}
