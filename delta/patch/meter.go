package patch

import "sync"

// tellEvery is behind how many bytes Progress is told again, about.
const tellEvery = 64 << 10

// meter tells Options.Progress where Create stands: in a stage of an attempt. An attempt
// takes a share of what is left of all, and a stage of what is left of its attempt, so
// that nothing goes back where one is left out or added. A nil meter tells nobody.
type meter struct {
	tell  func(done, total int64)
	total int64

	mu      sync.Mutex // guards all below, and is held while tell is called
	told    int64      // at last; -1: nothing yet
	lo, hi  float64    // where the stage begins and ends, of 1
	top     float64    // where the attempt ends
	at, all int64      // bytes of the stage
}

// What stages take of their attempt, or what is left of it, as they take time: encoding
// takes the rest.
const (
	shareFind     = 0.05 // for each layer
	shareAnalyze  = 0.3
	shareCovers   = 0.15
	shareSlab     = 0.6 // covers of one
	sharePrograms = 0.35
	sharePlain    = 0.2 // where dense segments are made, too
)

// What attempts take that others follow for certain, or perhaps.
const (
	shareFirst = 0.5
	shareOnly  = 0.95
	shareAgain = 0.2 // reading the base as a decoder does
)

func newMeter(tell func(done, total int64), total int64) *meter {
	if tell == nil {
		return nil
	}
	return &meter{tell: tell, total: total, told: -1, top: 1}
}

// attempt begins the next attempt.
func (m *meter) attempt(share float64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.top = m.hi + share*(1-m.hi)
}

// stage begins the next stage, of all bytes.
func (m *meter) stage(share float64, all int64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lo, m.hi = m.hi, m.hi+share*(m.top-m.hi)
	m.at, m.all = 0, max(all, 1)
	m.sayLocked()
}

// add notes that n more bytes of the stage are done.
func (m *meter) add(n int64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = min(m.at+n, m.all)
	m.sayLocked()
}

// sayLocked tells what is new. That all is done only end says.
func (m *meter) sayLocked() {
	part := m.lo + (m.hi-m.lo)*float64(m.at)/float64(m.all)
	if done := min(int64(part*float64(m.total)), m.total-1); done > m.told {
		m.told = done
		m.tell(done, m.total)
	}
}

// end tells that all is done.
func (m *meter) end() {
	if m != nil {
		m.tell(m.total, m.total)
	}
}

// metered is a stream that is read from front to back, about.
type metered struct {
	Source
	meter *meter
	told  int64
}

// ReadAt implements io.ReaderAt.
func (s *metered) ReadAt(b []byte, off int64) (int, error) {
	n, err := s.Source.ReadAt(b, off)
	if d := off + int64(n) - s.told; d >= tellEvery {
		s.told += d
		s.meter.add(d)
	}
	return n, err
}
