package patch

import (
	"reflect"
	"testing"
)

// TestTableMemory: tables of many segments are in what a patch says of memory, those of
// a usual one are in its first MiB.
func TestTableMemory(t *testing.T) {
	for n, want := range map[int]int64{4000: 1 << 20, maxSegs: maxSegs * int64(reflect.TypeFor[segment]().Size()+reflect.TypeFor[SegmentInfo]().Size())} {
		h := &header{segs: make([]segment, n)}
		for i := range h.segs {
			h.segs[i] = segment{kind: kindCopy, size: 1, payload: 1}
		}
		if in := h.info(0, nil); in.Memory < want || in.Memory > want+want/2 {
			t.Errorf("%d segments take %d bytes of memory, want %d", n, in.Memory, want)
		}
	}
}
