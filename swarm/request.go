package swarm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"updraft/swarm/wire"
)

const (
	requestsPerPeer = 4                // requests of one member that are served at once
	requestTimeout  = 30 * time.Second // a request, from the first byte to the last, on both sides
)

// Request fetches a small file from a member, at most limit bytes and at most 4 MiB. An error that wraps
// fs.ErrNotExist says that the member does not have it, ErrTooLarge that it is larger, ErrBusy that the member serves
// too many of our requests already, *RemoteError what else went wrong there.
func (s *Swarm) Request(ctx context.Context, p peer.ID, name string, limit int) ([]byte, error) {
	return s.ask(ctx, p, ProtoFile, name, nil, limit)
}

// Invoke calls a method of a member with an argument of at most 64 KiB; errors are those of Request.
func (s *Swarm) Invoke(ctx context.Context, p peer.ID, method string, arg []byte) ([]byte, error) {
	return s.ask(ctx, p, ProtoCall, method, arg, wire.MaxAnswer)
}

func (s *Swarm) ask(ctx context.Context, p peer.ID, proto protocol.ID, name string, arg []byte, limit int) ([]byte, error) {
	if name == "" || len(name) > wire.MaxName || len(arg) > wire.MaxArgument {
		return nil, fmt.Errorf("%w: request of %d + %d bytes", ErrTooLarge, len(name), len(arg))
	}
	s.mu.Lock()
	m := s.members[p]
	s.mu.Unlock()
	if m == nil {
		return nil, ErrNotMember
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	st, err := openStream(ctx, m.conn, proto, requestTimeout)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
	b, err := exchange(st, name, arg, limit)
	if !stop() && err != nil {
		err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	if err != nil {
		_ = st.Reset()
		return nil, fmt.Errorf("swarm: %s of %s: %w", name, p, err)
	}
	return b, st.Close()
}

func exchange(st network.Stream, name string, arg []byte, limit int) ([]byte, error) {
	if _, err := st.Write(wire.AppendRequest(nil, name, arg)); err != nil {
		return nil, err
	}
	if err := st.CloseWrite(); err != nil {
		return nil, err
	}
	status, body, err := wire.ReadAnswer(st, limit)
	switch {
	case errors.Is(err, wire.ErrTooLarge):
		return nil, fmt.Errorf("%w: %w", ErrTooLarge, err)
	case err != nil:
		return nil, err
	}
	switch status {
	case wire.StatusOK:
		return body, nil
	case wire.StatusNotFound:
		return nil, fs.ErrNotExist
	case wire.StatusBusy:
		return nil, ErrBusy
	case wire.StatusTooLarge:
		return nil, ErrTooLarge
	}
	return nil, &RemoteError{Text: string(body)}
}

func (s *Swarm) serveFile(ctx context.Context, st network.Stream) {
	s.answer(ctx, st, func(_ context.Context, _ peer.ID, name string, _ []byte) ([]byte, error) {
		if s.cfg.Files == nil {
			return nil, fs.ErrNotExist
		}
		return s.cfg.Files(name)
	})
}

func (s *Swarm) serveCall(ctx context.Context, st network.Stream) {
	s.answer(ctx, st, func(ctx context.Context, from peer.ID, method string, arg []byte) ([]byte, error) {
		if s.cfg.Call == nil {
			return nil, fs.ErrNotExist
		}
		return s.cfg.Call(ctx, from, method, arg)
	})
}

// answer serves one request stream of a member.
func (s *Swarm) answer(ctx context.Context, st network.Stream, f func(context.Context, peer.ID, string, []byte) ([]byte, error)) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
	defer stop()
	m := s.waitMember(ctx, st.Conn())
	if m == nil {
		_ = st.Reset()
		return
	}
	var out []byte
	select {
	case m.requests <- struct{}{}:
		defer func() { <-m.requests }()
		name, arg, err := wire.ReadRequest(st)
		if err != nil {
			_ = st.Reset()
			return
		}
		out = encodeAnswer(f(ctx, m.id, name, arg))
	default:
		out = wire.AppendAnswer(nil, wire.StatusBusy, nil)
	}
	if _, err := st.Write(out); err != nil {
		_ = st.Reset()
		return
	}
	_ = st.Close()
}

func encodeAnswer(b []byte, err error) []byte {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return wire.AppendAnswer(nil, wire.StatusNotFound, nil)
	case err != nil:
		t := err.Error()
		return wire.AppendAnswer(nil, wire.StatusError, []byte(t[:min(len(t), wire.MaxError)]))
	case len(b) > wire.MaxAnswer:
		return wire.AppendAnswer(nil, wire.StatusTooLarge, nil)
	}
	return wire.AppendAnswer(make([]byte, 0, len(b)+5), wire.StatusOK, b)
}
