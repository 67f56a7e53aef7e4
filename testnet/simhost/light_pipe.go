package simhost

import (
	"io"
	"os"
	"sync"
	"time"
)

// pipe is one direction of a stream.
type pipe struct {
	from, to *lightHost

	mu              sync.Mutex // guards what follows
	change          *sync.Cond
	parts           [][]byte // that have arrived
	under           int      // bytes under way or unread
	last            time.Time
	eof             bool
	err             error
	readBy, writeBy lightDeadline
}

// lightDeadline wakes who waits when it has passed.
type lightDeadline struct {
	at    time.Time
	timer *time.Timer
}

func newPipe(from, to *lightHost) *pipe {
	p := &pipe{from: from, to: to}
	p.change = sync.NewCond(&p.mu)
	return p
}

func (d *lightDeadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (p *pipe) deadline(d *lightDeadline, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.at = t
	if t.IsZero() {
		if d.timer != nil {
			d.timer.Stop()
		}
		return
	}
	// A timer that is set already looks again when it fires.
	if d.timer == nil {
		d.timer = time.AfterFunc(time.Until(t), p.wake)
	} else {
		d.timer.Reset(time.Until(t))
	}
}

func (p *pipe) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change.Broadcast()
}

func (p *pipe) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	for _, d := range []*lightDeadline{&p.readBy, &p.writeBy} {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
	p.change.Broadcast()
}

// finish tells the reader of the end, behind what is under way.
func (p *pipe) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.last
	if !at.After(time.Now()) {
		at = time.Now().Add(p.from.on.latency)
	}
	time.AfterFunc(time.Until(at)+time.Nanosecond, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.eof = true
		p.change.Broadcast()
	})
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.parts) == 0 {
		switch {
		case p.err != nil:
			return 0, p.err
		case p.eof:
			return 0, io.EOF
		case p.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		}
		p.change.Wait()
	}
	n := copy(b, p.parts[0])
	if p.parts[0] = p.parts[0][n:]; len(p.parts[0]) == 0 {
		p.parts[0] = nil
		p.parts = p.parts[1:]
	}
	p.under -= n
	p.change.Broadcast()
	return n, nil
}

func (p *pipe) write(b []byte) (total int, err error) {
	for len(b) > 0 {
		n, err := p.writePart(b[:min(len(b), 64<<10)])
		total += n
		if err != nil {
			return total, err
		}
		b = b[n:]
	}
	return total, nil
}

func (p *pipe) writePart(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.err != nil:
			return 0, p.err
		case p.writeBy.passed():
			return 0, os.ErrDeadlineExceeded
		}
		if p.under+len(b) <= lightWindow {
			break
		}
		p.change.Wait()
	}
	p.under += len(b)
	part := append([]byte(nil), b...)
	at, ok := p.from.on.arrival(p, part)
	if ok {
		p.last = at
		time.AfterFunc(time.Until(at), func() { p.arrive(part) })
	}
	return len(b), nil
}

func (p *pipe) arrive(part []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parts = append(p.parts, part)
	p.change.Broadcast()
}
