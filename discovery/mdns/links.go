package mdns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

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

// WatchLinks calls changed whenever the interfaces or addresses of a LAN have changed, until ctx ends: what
// Config.Changed tells of, for a device that finds others in another way. patterns are as in Config.Interfaces. Where the
// kernel does not tell, it looks every 5 s. Where addresses alone change without end it tells of that once a minute, and
// of the last of them. changed must not block.
func WatchLinks(ctx context.Context, patterns []string, changed func()) {
	r := &run{links: make(chan struct{}, 1), watch: watchEvery}
	var wg sync.WaitGroup
	defer wg.Wait()
	if links, err := openLinks(); err == nil {
		defer links.Close()
		wg.Go(func() { tellChanges(links, r.links) })
	}
	r.follow(ctx, func() lan { return lookLAN(patterns) }, changed)
}

// follow calls changed when look returns another LAN, at the pace of sessions: it has the members asked, and all others
// dialled, as a session has the site talk.
func (r *run) follow(ctx context.Context, look func() lan, changed func()) {
	here, since := look(), time.Now()
	for r.pause(ctx); ctx.Err() == nil; r.pause(ctx) {
		r.watch = watchEvery
		now := look()
		if now.ifaces == here.ifaces {
			continue
		}
		if left := r.pace.left(time.Since(since), now.links == here.links); left > 0 {
			r.watch = min(max(left, linkPause), watchEvery)
			continue
		}
		here, since = now, time.Now()
		if here.ifaces != "" {
			changed()
		}
	}
}

// lan is what WatchLinks looks at.
type lan struct {
	ifaces string // changes when the interfaces of a LAN do; empty: there are none
	links  string // changes when an interface of the host does, but not with addresses
}

func lookLAN(patterns []string) lan {
	all, err := listIfaces()
	if err != nil {
		return lan{}
	}
	return lan{fingerprint(slices.DeleteFunc(choose(all, patterns, false), iface.loopback)), links(all)}
}
