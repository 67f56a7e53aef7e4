package swarm

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/sys/unix"
)

// What a slow link carries comes as whole messages of the multiplexer, of up to 128 KiB, and as blobs of up to 1 MiB: a
// member that is at work may hand over nothing for a minute. So it is judged by bytes: of those that the kernel has
// received, and of those that were read from its blob stream.
const (
	paceLeast  = 1 << 10                 // bytes a second: who sends or takes a blob more slowly is dropped
	paceWorth  = 4 << 10                 // bytes a second: what comes more slowly on the whole is not waited for
	patientFor = stuckAfter / 2          // how often it is looked whether a blob moves; twice without ends the connection
	flowLook   = 500 * time.Millisecond  // how often it is looked whether bytes come from a member, while that matters
	flowFor    = 1500 * time.Millisecond // bytes that have come count for this long
	flowGap    = 4 * time.Second         // the same, of all members together, where the link here is slow
	slowWrite  = 2 * time.Second         // a member that takes a message in more gets shorter ones
)

// timeFor returns the time that n bytes may take at a pace.
func timeFor(n int64, pace int64) time.Duration {
	return stuckAfter + time.Duration(n)*time.Second/time.Duration(pace)
}

// traffic returns how many bytes the kernel has received and how many the other side's has acknowledged; 0 where it does
// not know. On a slow link the reader is woken only when a whole message is there: it cannot tell.
func (c *recordConn) traffic() (in, acked int64) {
	if c == nil {
		return 0, 0
	}
	_ = c.raw.Control(func(fd uintptr) {
		if t, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			in, acked = int64(t.Bytes_received), int64(t.Bytes_acked)
		}
	})
	return in, acked
}

// unacked returns for how long the other side's kernel has acknowledged nothing, and whether it should have: bytes were
// sent again in vain.
func (c *recordConn) unacked() (silent time.Duration, out bool) {
	if c == nil {
		return 0, false
	}
	_ = c.raw.Control(func(fd uintptr) {
		if t, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			silent, out = time.Duration(t.Last_ack_recv)*time.Millisecond, t.Unacked > 0 && t.Backoff > 0
		}
	})
	return silent, out
}

// arrived returns a number that grows with the bytes that come from the member.
func (m *member) arrived() int64 {
	in, _ := m.raw.traffic()
	return in + m.read.Load()
}

// proof returns a number that grows with the bytes that come from the member or, where that is one, are acknowledged by
// it.
func (m *member) proof() int64 {
	in, acked := m.raw.traffic()
	if m.oneWay {
		acked = 0
	}
	return in + acked + m.read.Load()
}

// flows reports whether bytes have come from the member lately.
func (m *member) flows(now time.Duration) bool { return m.flowed != 0 && now-m.flowed < flowFor }

// awaited reports whether the member was asked for a blob or is in the middle of one.
func (m *member) awaited(now time.Duration) bool { return m.asked > 0 || now < m.blobUntil }

// flowLocked looks from which members bytes come, of those to which that matters: who is to send a blob, or is silent.
// It returns when to look again.
func (s *Swarm) flowLocked(now time.Duration) time.Duration {
	next := now + time.Second
	for _, m := range s.members {
		if !m.awaited(now) && now-m.heard < flowLook {
			continue
		}
		if m.awaited(now) {
			next = min(next, now+flowLook)
		}
		if now-m.looked < flowLook {
			continue
		}
		n := m.arrived()
		if d := n - m.seen; m.looked != 0 && d*int64(time.Second) >= paceLeast*int64(now-m.looked) {
			m.flowed = now
			m.heard, m.pinged, m.mute = now, 0, false
			if m.awaited(now) {
				s.count.Flow += d
				s.worked, s.flowed = now, now
			}
		}
		m.looked, m.seen = now, n
	}
	return next
}

// patience tells for how long to wait for a blob to move on.
type patience struct {
	last int64 // as of the last look; -1: there was none
	idle int   // looks since anything moved
	end  time.Time
}

func newPatience(size int) patience {
	return patience{last: -1, end: time.Now().Add(timeFor(int64(size)+muxMessage, paceLeast))}
}

// more reports whether to wait on, after another patientFor; n is a number that grows with the bytes that move.
func (p *patience) more(n int64) bool {
	if p.last >= 0 && n-p.last >= paceLeast*int64(patientFor/time.Second) {
		p.idle = 0
	} else {
		p.idle++
	}
	p.last = n
	return p.idle < int(stuckAfter/patientFor) && time.Now().Before(p.end)
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// inflow is the blob stream of a member, as it is read. Between blobs it waits for ever; within one an error ends the
// wait when nothing has come for stuckAfter, or less than paceLeast.
type inflow struct {
	m      *member
	st     network.Stream
	within patience
}

// between waits for the next blob.
func (f *inflow) between() error { return f.st.SetReadDeadline(time.Time{}) }

// begin says that the reader is within a blob of n bytes.
func (f *inflow) begin(n int) error {
	f.within = newPatience(n)
	return f.st.SetReadDeadline(time.Now().Add(patientFor))
}

// Read is part of io.Reader.
func (f *inflow) Read(p []byte) (int, error) {
	for {
		n, err := f.st.Read(p)
		f.m.read.Add(int64(n))
		if n > 0 || err == nil || !isTimeout(err) || !f.within.more(f.m.arrived()) {
			return n, err
		}
		if err := f.st.SetReadDeadline(time.Now().Add(patientFor)); err != nil {
			return 0, err
		}
	}
}

// outflow is the blob stream to a member. A message of which it takes less than paceLeast ends the stream.
type outflow struct {
	m    *member
	st   network.Stream
	slow bool // the last message was taken slowly
}

// openBlobs opens the blob stream to a member.
func openBlobs(ctx context.Context, m *member) (*outflow, error) {
	st, err := openStream(ctx, m.conn, ProtoBlob, helloTimeout)
	if err != nil {
		return nil, err
	}
	return &outflow{m: m, st: st}, nil
}

// Write is part of io.Writer.
func (f *outflow) Write(p []byte) (n int, err error) {
	begun, within := time.Now(), newPatience(len(p))
	for {
		if err := f.st.SetWriteDeadline(time.Now().Add(patientFor)); err != nil {
			return n, err
		}
		k, err := f.st.Write(p[n:])
		n += k
		if err == nil {
			f.slow = time.Since(begun) > slowWrite
			return n, nil
		}
		if _, acked := f.m.raw.traffic(); !isTimeout(err) || !within.more(acked+int64(n)) {
			return n, err
		}
	}
}
