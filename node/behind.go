package node

import (
	"os"

	"golang.org/x/sys/unix"
)

// What is written behind is behindStep bytes at a time, and what is let go of is behindKeep bytes further back, where
// the disk has it by then and hardly any neighbour asks for it still.
const (
	behindStep = 4 << 20
	behindKeep = 8 << 20

	behindAlign = 1 << 20 // what the page cache keeps as one piece does not reach across a multiple of this
)

// behind keeps a file that is written once, and is larger than the memory of a device, from taking the place in memory
// of what the device is there for: the beginning of it goes to the disk while the rest comes, not at the end all at
// once, and then leaves the page cache. Every error is left to the Sync at the end, which knows of all.
// (Linux, mm/fadvise.c and fs/sync.c; man 2 sync_file_range.)
type behind struct{ started, gone int64 }

// upTo says that nothing before byte end is going to be written any more, nor hashed.
func (b *behind) upTo(f *os.File, end int64) {
	if end -= end % behindAlign; end-b.started < behindStep {
		return
	}
	fd := int(f.Fd())
	_ = unix.SyncFileRange(fd, b.started, end-b.started, unix.SYNC_FILE_RANGE_WRITE)
	b.started = end
	if n := end - behindKeep - b.gone; n > 0 {
		_ = unix.SyncFileRange(fd, b.gone, n, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
		_ = unix.Fadvise(fd, b.gone, n, unix.FADV_DONTNEED)
		b.gone += n
	}
}
