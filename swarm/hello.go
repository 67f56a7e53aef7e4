package swarm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"updraft/swarm/wire"
)

// Protocols, in the order in which a connection comes to use them.
const (
	ProtoHello protocol.ID = "/updraft/hello/1" // handshake, then the control stream
	ProtoBlob  protocol.ID = "/updraft/blob/1"  // blobs, one direction
	ProtoFile  protocol.ID = "/updraft/file/1"  // Request
	ProtoCall  protocol.ID = "/updraft/call/1"  // Invoke
)

const (
	helloTimeout  = 5 * time.Second
	strangerLimit = 10 * time.Second // a connection that is no member's after this is closed
	deafAfter     = 5 * time.Second  // silence after which a connection is given up for one that the peer dials
)

// errDuplicate ends a handshake on a connection that is not the one to keep.
var errDuplicate = errors.New("swarm: another connection of this pair is kept")

// RefusedError says that a peer is not admitted here, or that it does not admit this device.
type RefusedError struct {
	Peer  peer.ID
	There bool  // it refused us
	Full  bool  // for want of room
	Err   error // what Admit said
}

func (e *RefusedError) Error() string {
	switch {
	case e.Full:
		return fmt.Sprintf("swarm: no room for another member (%s)", e.Peer)
	case e.There:
		return fmt.Sprintf("swarm: %s does not admit this device", e.Peer)
	}
	return fmt.Sprintf("swarm: %s is not admitted: %v", e.Peer, e.Err)
}

func (e *RefusedError) Unwrap() error { return e.Err }

// serve installs the stream handlers; ctx ends what they start.
func (s *Swarm) serve(ctx context.Context) {
	h := s.cfg.Host
	on := func(p protocol.ID, f func(context.Context, network.Stream)) {
		h.SetStreamHandler(p, func(st network.Stream) {
			if !s.enter() {
				_ = st.Reset()
				return
			}
			defer s.wg.Done()
			f(ctx, st)
		})
	}
	on(ProtoHello, s.answerHello)
	on(ProtoBlob, s.acceptBlobs)
	on(ProtoFile, s.serveFile)
	on(ProtoCall, s.serveCall)
}

func (s *Swarm) unserve() {
	for _, p := range []protocol.ID{ProtoHello, ProtoBlob, ProtoFile, ProtoCall} {
		s.cfg.Host.RemoveStreamHandler(p)
	}
}

// openStream opens a stream of protocol p on connection c. The handshake of the stream is bounded by ctx and timeout.
func openStream(ctx context.Context, c network.Conn, p protocol.ID, timeout time.Duration) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	st, err := c.NewStream(ctx)
	if err != nil {
		return nil, fmt.Errorf("swarm: open stream: %w", err)
	}
	if err := st.SetProtocol(p); err != nil {
		_ = st.Reset()
		return nil, fmt.Errorf("swarm: open stream: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
	err = multistream.SelectProtoOrFail(p, st)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = st.Reset()
		return nil, fmt.Errorf("swarm: protocol %s: %w", p, err)
	}
	return st, nil
}

// stranger is a connection that is no member's.
type stranger struct {
	until   time.Time // when it is closed
	greeted bool      // it has said hello
}

// met notes a new connection: unless it becomes a member's, it is closed.
func (s *Swarm) met(c network.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.strange[c] = &stranger{until: time.Now().Add(strangerLimit)}
		s.soonLocked(s.now() + strangerLimit)
	}
}

// parted notes the end of a connection.
func (s *Swarm) parted(c network.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.strange, c)
	if m := s.members[c.RemotePeer()]; m != nil && m.conn == c {
		s.dropLocked(m, "connection closed")
	}
}

func (s *Swarm) hello() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return wire.AppendHello(nil, wire.Hello{Version: wire.Version, Features: wire.FeaturePacked, Instance: s.instance, Credential: s.cfg.Credential})
}

// SetCredential changes what is sent to every peer that we meet from now on; connections that are up stay, and who
// refused the one before is dialled again. More than 4 KiB is an error. credential must not be changed afterwards.
func (s *Swarm) SetCredential(credential []byte) error {
	if len(credential) > wire.MaxCredential {
		return fmt.Errorf("%w: credential of %d bytes, limit %d", ErrTooLarge, len(credential), wire.MaxCredential)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.Credential = credential
	s.renewed++
	for id, t := range s.targets {
		if s.members[id] == nil && !t.dialing {
			t.next = min(t.next, s.now()+s.politenessLocked(id))
			s.soonLocked(t.next)
		}
	}
	return nil
}

// readHello reads and admits the other side's hello.
func (s *Swarm) readHello(id peer.ID, body []byte) (*member, error) {
	h, err := wire.ParseHello(body)
	if err != nil {
		return nil, err
	}
	if h.Version == 0 {
		return nil, fmt.Errorf("%w: version 0", wire.ErrMalformed)
	}
	if s.gate.Shunned(id) {
		return nil, &RefusedError{Peer: id, Err: errors.New("shunned for what it sent")}
	}
	ident, err := s.cfg.Admit(id, h.Credential)
	if err != nil {
		return nil, &RefusedError{Peer: id, Err: err}
	}
	return &member{
		id: id, ident: ident, instance: h.Instance, packs: h.Features&wire.FeaturePacked != 0, since: time.Now(), gone: make(chan struct{}),
		controlWake: make(chan struct{}, 1), sendWake: make(chan struct{}, 1), shares: map[[32]byte]*share{}, requests: make(chan struct{}, requestsPerPeer),
	}, nil
}

// greeted takes note that a hello comes in on a connection, and reports whether that is its first: each costs the
// verification of a signature, and what a stranger may have verified is limited by connections.
func (s *Swarm) greeted(c network.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.strange[c]
	if x == nil {
		m := s.members[c.RemotePeer()]
		return m == nil || m.conn != c
	}
	first := !x.greeted
	x.greeted = true
	return first
}

// answerHello is the accepting side of the handshake; the stream becomes the control stream.
func (s *Swarm) answerHello(ctx context.Context, st network.Stream) {
	if !s.greeted(st.Conn()) {
		_ = st.Reset()
		return
	}
	r := bufio.NewReaderSize(st, 512)
	m, err := s.accept(st, r)
	if err == nil {
		err = s.register(m)
	}
	if err != nil {
		s.log.Debug("peer not admitted", "peer", st.Conn().RemotePeer(), "error", err)
		s.hangUp(ctx, st)
		return
	}
	s.runMember(ctx, m, r)
}

func (s *Swarm) accept(st network.Stream, r *bufio.Reader) (*member, error) {
	if err := st.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return nil, fmt.Errorf("swarm: hello: %w", err)
	}
	typ, body, err := wire.ReadFrame(r, wire.MaxHello, nil)
	if err != nil || typ != wire.TypeHello {
		return nil, fmt.Errorf("swarm: hello expected: %w", errors.Join(err, wire.ErrMalformed))
	}
	m, err := s.readHello(st.Conn().RemotePeer(), body)
	if err != nil {
		_, _ = st.Write(wire.AppendVerdict(nil, wire.Refused))
		return nil, err
	}
	m.conn, m.control = st.Conn(), st
	if v := s.judge(m); v != wire.Admitted {
		_, _ = st.Write(wire.AppendVerdict(nil, v))
		return nil, verdictError(m.id, v, false)
	}
	if _, err := st.Write(s.hello()); err != nil {
		return nil, fmt.Errorf("swarm: hello: %w", err)
	}
	typ, body, err = wire.ReadFrame(r, wire.MaxHello, nil)
	if err != nil || typ != wire.TypeAdmit {
		return nil, fmt.Errorf("swarm: verdict expected: %w", errors.Join(err, wire.ErrMalformed))
	}
	v, err := wire.ParseVerdict(body)
	if err != nil {
		return nil, err
	}
	if v != wire.Admitted {
		return nil, verdictError(m.id, v, true)
	}
	return m, st.SetDeadline(time.Time{})
}

// offerHello is the dialling side of the handshake. On success it returns when the member is gone.
func (s *Swarm) offerHello(ctx context.Context, c network.Conn) error {
	st, err := openStream(ctx, c, ProtoHello, helloTimeout)
	if err != nil {
		return err
	}
	r := bufio.NewReaderSize(st, 512)
	m, err := s.offer(st, r)
	if err == nil {
		err = s.register(m)
	}
	if err != nil {
		_ = st.Reset()
		_ = c.Close()
		return err
	}
	s.runMember(ctx, m, r)
	return nil
}

func (s *Swarm) offer(st network.Stream, r *bufio.Reader) (*member, error) {
	if err := st.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return nil, fmt.Errorf("swarm: hello: %w", err)
	}
	if _, err := st.Write(s.hello()); err != nil {
		return nil, fmt.Errorf("swarm: hello: %w", err)
	}
	typ, body, err := wire.ReadFrame(r, wire.MaxHello, nil)
	if err != nil {
		return nil, fmt.Errorf("swarm: hello: %w", err)
	}
	id := st.Conn().RemotePeer()
	if typ == wire.TypeAdmit {
		v, err := wire.ParseVerdict(body)
		if err == nil {
			err = verdictError(id, v, true)
		}
		return nil, err
	}
	if typ != wire.TypeHello {
		return nil, fmt.Errorf("%w: hello expected", wire.ErrMalformed)
	}
	m, err := s.readHello(id, body)
	if err != nil {
		_, _ = st.Write(wire.AppendVerdict(nil, wire.Refused))
		return nil, err
	}
	m.conn, m.control, m.dialled = st.Conn(), st, true
	v := s.judge(m)
	if _, err := st.Write(wire.AppendVerdict(nil, v)); err != nil {
		return nil, fmt.Errorf("swarm: verdict: %w", err)
	}
	if v != wire.Admitted {
		return nil, verdictError(id, v, false)
	}
	return m, st.SetDeadline(time.Time{})
}

func verdictError(id peer.ID, v wire.Verdict, there bool) error {
	switch v {
	case wire.Duplicate:
		return errDuplicate
	case wire.Full:
		return &RefusedError{Peer: id, There: there, Full: true}
	}
	return &RefusedError{Peer: id, There: there, Err: wire.ErrMalformed}
}

// hangUp gives the other side a moment to read why, then closes the connection.
func (s *Swarm) hangUp(ctx context.Context, st network.Stream) {
	_ = st.CloseWrite()
	t := time.NewTimer(500 * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	_ = st.Reset()
	_ = st.Conn().Close()
}

// judge says whether the connection of m would be kept if the handshake succeeds.
func (s *Swarm) judge(m *member) wire.Verdict {
	s.mu.Lock()
	v := s.judgeLocked(m)
	twin := v == wire.Duplicate && s.twinLocked(m)
	s.mu.Unlock()
	if twin {
		s.log.Warn("two devices have one key", "peer", m.id, "name", m.ident.Name)
		if s.cfg.Blamed != nil {
			s.cfg.Blamed(m.id, m.ident, ErrTwin, 0)
		}
	}
	return v
}

// twinLocked reports whether m is a device with the key of a member: it had to make room for that member, and has come
// back. A device that starts again does not return to an instance that it had before.
func (s *Swarm) twinLocked(m *member) bool {
	old := s.members[m.id]
	was, known := s.displaced[m.id]
	return old != nil && old.instance != m.instance && known && was == m.instance
}

func (s *Swarm) judgeLocked(m *member) wire.Verdict {
	old := s.members[m.id]
	switch {
	case old == nil && len(s.members) >= s.cfg.MaxPeers:
		return wire.Full
	case s.twinLocked(m):
		return wire.Duplicate // let the one that is here stay, or they would take turns for ever
	case old == nil || old.instance != m.instance:
		return wire.Admitted // new, or it has restarted and the old connection is dead
	case old.conn == m.conn:
		return wire.Duplicate
	case old.dialled == m.dialled:
		return wire.Admitted // the same side dialled again: its old connection is dead
	case !m.dialled && s.now()-old.heard > deafAfter:
		return wire.Admitted // it has lost the old connection, and its word of that was lost; if not, it says so
	}
	// Both dialled at once: the connection that the lower ID dialled is kept.
	if m.dialled == (s.self < m.id) {
		return wire.Admitted
	}
	return wire.Duplicate
}

// register makes m a member, in the place of an older connection.
func (s *Swarm) register(m *member) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if v := s.judgeLocked(m); v != wire.Admitted {
		return verdictError(m.id, v, false)
	}
	if old := s.members[m.id]; old != nil {
		if _, known := s.displaced[m.id]; old.instance != m.instance && (known || len(s.displaced) < shunEntries) {
			s.displaced[m.id] = old.instance
		}
		s.dropLocked(old, "replaced")
	}
	s.members[m.id] = m
	delete(s.strange, m.conn)
	if g, ok := m.conn.Scope().(*guest); ok {
		g.admit()
	}
	m.conn.As(&m.raw)
	m.joined = s.now()
	m.heard = m.joined
	m.slowUntil = s.late[m.id].until
	m.profileDue = true
	m.wakeControl()
	for _, obj := range s.order {
		s.attachLocked(m, obj)
	}
	if t := s.targets[m.id]; t != nil {
		s.backLocked(t, s.now())
	}
	s.runLocked(s.lease.Up(s.now(), string(m.id)))
	s.log.Debug("member joined", "peer", m.id, "name", m.ident.Name, "addr", m.conn.RemoteMultiaddr(), "dialled", m.dialled)
	s.notifyLocked()
	return nil
}
