package node

import (
	"sync/atomic"
	"time"
)

// Switch are windows that a test opens and closes.
type Switch struct{ atomic.Bool }

// Open implements windows.
func (s *Switch) Open(time.Time) bool { return s.Load() }

// Next implements windows.
func (s *Switch) Next(t time.Time) (time.Time, bool) { return t, true }

// SetWindows is called before Run.
func (n *Node) SetWindows(s *Switch) { n.windows = s }
