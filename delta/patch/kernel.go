package patch

import (
	"bytes"
	"encoding/binary"
)

// kernelMark stands in an arm64 kernel's image, 56 bytes from its start.
const kernelMark = "ARM\x64"

// kernelAt returns where the first arm64 kernel in b[from:] begins, or -1.
func kernelAt(b []byte, from int) int {
	for at := from; ; at++ {
		i := bytes.Index(b[at:], []byte(kernelMark))
		if i < 0 {
			return -1
		}
		at += i
		if k := at - 56; k >= from && b[k] == 'M' && b[k+1] == 'Z' {
			return k
		}
	}
}

// kernelBases are the addresses that arm64 kernels were linked at, by version and
// bits of address.
var kernelBases = []uint64{0xffff800080000000, 0xffff800008000000, 0xffff800010000000, 0xffff000008080000, 0xffffffc080000000, 0xffffffc008000000, 0xffffffc010000000}

// kernelSize returns how many bytes the arm64 kernel has in the stream that b, its
// headers, begins; 0: it is none.
func kernelSize(b []byte) int64 {
	le := binary.LittleEndian
	if len(b) < kernelPage {
		return 0
	}
	mem := le.Uint64(b[16:])
	n := min(mem, maxKernel)
	// Its other header, for EFI, has the size in the file.
	if pe := uint64(le.Uint32(b[60:])); pe < 2048 && string(b[pe:pe+4]) == "PE\x00\x00" {
		rows := pe + 24 + uint64(le.Uint16(b[pe+20:]))
		end := uint64(0)
		for i := range uint64(le.Uint16(b[pe+6:])) {
			at := rows + i*40
			if at+40 > kernelPage {
				break
			}
			end = max(end, uint64(le.Uint32(b[at+16:]))+uint64(le.Uint32(b[at+20:])))
		}
		if end > 0 {
			n = min(n, end)
		}
	}
	if n < kernelPage || mem >= maxMem {
		return 0
	}
	return int64(n)
}

// parseKernel reads the arm64 kernel in front of b, of which as much is there as
// kernelSize says, or as the stream has.
func parseKernel(b []byte, off, limit int64) (image, bool) {
	n := min(kernelSize(b), int64(len(b)))
	if n == 0 {
		return image{}, false
	}
	mem := binary.LittleEndian.Uint64(b[16:])
	im := image{off: off, mach: machARM64}
	im.loads = []load{{off: off, n: n, v: kernelBase(b[:n]), mem: max(mem, uint64(n)), exec: true}}
	im.bounds()
	return im, im.loads[0].valid(off, limit)
}

// kernelBase returns the address at which b is probably mapped: the one that makes
// the most of its words pointers to it.
func kernelBase(b []byte) uint64 {
	var hits [16]int
	for i := 0; i+8 <= len(b); i += 8 {
		if v := binary.LittleEndian.Uint64(b[i:]); v>>38 == 1<<26-1 {
			for k, base := range kernelBases {
				if v-base < uint64(len(b)) {
					hits[k]++
				}
			}
		}
	}
	best := 0
	for k := range kernelBases {
		if hits[k] > hits[best] {
			best = k
		}
	}
	return kernelBases[best]
}
