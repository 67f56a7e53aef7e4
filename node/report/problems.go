package report

import (
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxProblems = 64      // in the list; the one that was seen longest ago makes room
	maxText     = 4 << 10 // bytes of Text, Hint and Subject; the rest is cut off
)

// Problem is something that is wrong now.
type Problem struct {
	Code    string    `json:"code"`           // kind, for programs
	Subject string    `json:"subject"`        // what it concerns
	Text    string    `json:"text"`           // the newest one's
	Hint    string    `json:"hint,omitempty"` // what to do
	First   time.Time `json:"first"`          // since the agent started or it was last over
	Last    time.Time `json:"last"`
	Count   int       `json:"count"`
}

// Problems is a bounded list of problems, one for each code and subject. It is
// safe for concurrent use.
type Problems struct {
	mu   sync.Mutex // guards list
	list []Problem
}

// NewProblems returns an empty list.
func NewProblems() *Problems { return new(Problems) }

// Add notes a problem, for the first time or once more; First, Last and Count are
// filled in, and text that is too long or no UTF-8 is made to fit. It reports whether
// that is news: a problem that was not there, or not with this text.
func (p *Problems) Add(q Problem) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q.Subject, q.Text, q.Hint = bounded(q.Subject), bounded(q.Text), bounded(q.Hint)
	now := time.Now()
	q.First, q.Last, q.Count = now, now, 1
	if i := p.indexLocked(q.Code, q.Subject); i >= 0 {
		old := p.list[i]
		q.First, q.Count = old.First, old.Count+1
		p.list[i] = q
		return q.Text != old.Text
	}
	if len(p.list) == maxProblems {
		oldest := 0
		for i := range p.list {
			if p.list[i].Last.Before(p.list[oldest].Last) {
				oldest = i
			}
		}
		p.list = slices.Delete(p.list, oldest, oldest+1)
	}
	p.list = append(p.list, q)
	return true
}

func (p *Problems) indexLocked(code, subject string) int {
	return slices.IndexFunc(p.list, func(q Problem) bool { return q.Code == code && q.Subject == subject })
}

// Clear removes the problem with the code and subject.
func (p *Problems) Clear(code, subject string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := p.indexLocked(code, bounded(subject)); i >= 0 {
		p.list = slices.Delete(p.list, i, i+1)
	}
}

// ClearCode removes all problems with the code.
func (p *Problems) ClearCode(code string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = slices.DeleteFunc(p.list, func(q Problem) bool { return q.Code == code })
}

// ClearOlder removes the problems with the code that were not seen for so long.
func (p *Problems) ClearOlder(code string, age time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = slices.DeleteFunc(p.list, func(q Problem) bool { return q.Code == code && time.Since(q.Last) > age })
}

// List returns the problems in the order in which they first occurred; never nil.
func (p *Problems) List() []Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Problem{}, p.list...)
}

func bounded(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText-len("…")], "") + "…"
	}
	return strings.ToValidUTF8(s, "?")
}
