package origin

import (
	"crypto/tls"
	"sync"
)

// tlsSessions is how many origins, and hosts to which they redirect, a TLS session is kept of.
const tlsSessions = 8

// sessions keeps TLS sessions by server; those of the few mirrors of a fleet. The zero value
// is ready, and safe for concurrent use. The cache of crypto/tls, which nothing else here
// needs, would cost 8 kB of a binary that has its limit.
type sessions struct {
	mu sync.Mutex // guards of
	of map[string]*tls.ClientSessionState
}

func (s *sessions) Get(server string) (*tls.ClientSessionState, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cs := s.of[server]
	return cs, cs != nil
}

func (s *sessions) Put(server string, cs *tls.ClientSessionState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil || s.of[server] == nil && len(s.of) >= tlsSessions {
		s.of = make(map[string]*tls.ClientSessionState)
	}
	s.of[server] = cs
}
