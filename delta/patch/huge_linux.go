package patch

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugeLeast is how much a processor finds in small pages without asking where they lie, about.
const hugeLeast = 4 << 20

// huge asks for large pages under a table that is read at places all over: with small ones a processor mostly waits for
// where a page lies. It is a wish, and changes nothing but the speed.
func huge[T any](table []T) {
	var v T
	if n := len(table) * int(unsafe.Sizeof(v)); n >= hugeLeast {
		const page = 4 << 10
		b := unsafe.Slice((*byte)(unsafe.Pointer(&table[0])), n)
		skip := -int(uintptr(unsafe.Pointer(&table[0]))) & (page - 1)
		_ = unix.Madvise(b[skip:], unix.MADV_HUGEPAGE)
	}
}
