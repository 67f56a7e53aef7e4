package swarm

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// What follows are system calls on sockets that do not block, made without telling the scheduler of the runtime. It
// would be told so that it can give the processor to somebody else if the call takes long, for which a thread of its own
// (sysmon) wakes up and looks every 20 µs as long as anything runs: on a device that does a little work for each blob
// that comes, that was a sixth of all CPU time. These calls copy at most some hundred KiB and return.

// readNow reads what is there into p, which is not empty.
func readNow(fd uintptr, p []byte) (int, error) {
	for {
		n, _, e := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		switch e {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

// writeNow writes as much of p, which is not empty, as there is room for.
func writeNow(fd uintptr, p []byte) (int, error) {
	for {
		n, _, e := unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		switch e {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

// lowatNow sets SO_RCVLOWAT.
func lowatNow(fd uintptr, n int) error {
	v := int32(n)
	if _, _, e := unix.RawSyscall6(unix.SYS_SETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0); e != 0 {
		return e
	}
	return nil
}
