package report

import (
	"slices"
	"sync"
	"time"
)

// maxProblems bounds the list; the one that was seen longest ago makes room.
const maxProblems = 64

// Problem is something that is wrong now.
type Problem struct {
	Code    string    `json:"code"`    // kind, for programs
	Subject string    `json:"subject"` // what it concerns
	Text    string    `json:"text"`
	Hint    string    `json:"hint,omitempty"` // what to do
	First   time.Time `json:"first"`
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

// Add notes a problem; First, Last and Count are filled in.
func (p *Problems) Add(q Problem) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	q.First, q.Last, q.Count = now, now, 1
	if i := p.indexLocked(q.Code, q.Subject); i >= 0 {
		q.First, q.Count = p.list[i].First, p.list[i].Count+1
		p.list[i] = q
		return
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
}

func (p *Problems) indexLocked(code, subject string) int {
	return slices.IndexFunc(p.list, func(q Problem) bool { return q.Code == code && q.Subject == subject })
}

// Clear removes the problem with the code and subject.
func (p *Problems) Clear(code, subject string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = slices.DeleteFunc(p.list, func(q Problem) bool { return q.Code == code && q.Subject == subject })
}

// ClearCode removes all problems with the code.
func (p *Problems) ClearCode(code string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = slices.DeleteFunc(p.list, func(q Problem) bool { return q.Code == code })
}

// List returns the problems in the order in which they first occurred; never nil.
func (p *Problems) List() []Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Problem{}, p.list...)
}
