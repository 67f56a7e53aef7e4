package mdns

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// linkGroups are the notices of rtnetlink(7) about interfaces and their addresses.
const linkGroups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR

// openLinks opens a socket on which the kernel tells that interfaces or addresses of the
// host change: at once, where looking now and then takes seconds. A device whose cable is
// plugged in again reaches the origin as soon as its neighbours, and should know of them
// by then.
func openLinks() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("mdns: open netlink: %w", err)
	}
	f := os.NewFile(uintptr(fd), "rtnetlink")
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: linkGroups}); err != nil {
		return nil, errors.Join(fmt.Errorf("mdns: listen to netlink: %w", err), f.Close())
	}
	return f, nil
}

// tellChanges tells of every notice, until f is closed. What a notice says is looked up
// anew: one that is cut off, or lost, costs nothing.
func tellChanges(f *os.File, changed chan<- struct{}) {
	buf := make([]byte, 4<<10)
	for {
		if _, err := f.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}
