package report_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"updraft/node/report"
)

func TestProblemsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := report.NewProblems()
		if l := p.List(); l == nil || len(l) != 0 {
			t.Errorf("an empty list is %#v", l)
		}
		start := time.Now()
		if !p.Add(report.Problem{Code: "origin", Subject: "http://a", Text: "refused"}) || p.Add(report.Problem{Code: "origin", Subject: "http://a", Text: "refused"}) {
			t.Error("what was noted before is news, or what was not is not")
		}
		time.Sleep(time.Hour)
		p.Add(report.Problem{Code: "origin", Subject: "http://b", Text: "refused"})
		if !p.Add(report.Problem{Code: "origin", Subject: "http://a", Text: "timed out", Hint: "look at the modem"}) {
			t.Error("another text is no news")
		}
		l := p.List()
		if len(l) != 2 {
			t.Fatalf("%d problems", len(l))
		}
		a := l[0]
		if a.Subject != "http://a" || a.Count != 3 || a.Text != "timed out" || a.Hint != "look at the modem" {
			t.Errorf("first: %+v", a)
		}
		if !a.First.Equal(start) || !a.Last.Equal(start.Add(time.Hour)) {
			t.Errorf("from %v to %v", a.First, a.Last)
		}
		p.Clear("origin", "http://a")
		p.Clear("origin", "http://a")
		if l := p.List(); len(l) != 1 || l[0].Subject != "http://b" {
			t.Errorf("after Clear: %+v", l)
		}
		p.Add(report.Problem{Code: "origin", Subject: "http://a"})
		if a := p.List()[1]; a.Count != 1 || !a.First.Equal(start.Add(time.Hour)) {
			t.Errorf("back after Clear: %+v", a)
		}
		p.Add(report.Problem{Code: "disk"})
		p.ClearOlder("disk", 0)
		p.ClearOlder("origin", time.Minute)
		if l := p.List(); len(l) != 3 {
			t.Errorf("what is new was removed: %+v", l)
		}
		time.Sleep(time.Hour)
		p.ClearOlder("disk", time.Minute)
		if l := p.List(); len(l) != 2 {
			t.Errorf("what is old stays: %+v", l)
		}
		p.Add(report.Problem{Code: "disk"})
		p.ClearOlder("disk", time.Minute)
		p.ClearCode("origin")
		if l := p.List(); len(l) != 1 || l[0].Code != "disk" {
			t.Errorf("after ClearCode: %+v", l)
		}
	})
}

func TestProblemsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := report.NewProblems()
		for i := range 200 {
			p.Add(report.Problem{Code: "peer", Subject: fmt.Sprint(i)})
			time.Sleep(time.Second)
			p.Add(report.Problem{Code: "peer", Subject: "0"}) // seen again and again: stays
		}
		l := p.List()
		if len(l) != 64 || l[0].Subject != "0" || l[0].Count != 201 || l[63].Subject != "199" {
			t.Errorf("%d problems, from %+v to %+v", len(l), l[0], l[len(l)-1])
		}
	})
}

func TestProblemTextIsBounded(t *testing.T) {
	p := report.NewProblems()
	long := strings.Repeat("é", 1<<20) + "\xff"
	q := report.Problem{Code: "c", Subject: long, Text: "\xff" + long, Hint: long}
	p.Add(q)
	p.Add(q)
	l := p.List()
	if len(l) != 1 || l[0].Count != 2 {
		t.Fatalf("%d problems", len(l))
	}
	for _, s := range []string{l[0].Subject, l[0].Text, l[0].Hint} {
		if len(s) > 4<<10 || !utf8.ValidString(s) || !strings.HasSuffix(s, "…") {
			t.Errorf("%d bytes, valid: %v", len(s), utf8.ValidString(s))
		}
	}
	p.Clear("c", long)
	if l := p.List(); len(l) != 0 {
		t.Errorf("after Clear: %d problems", len(l))
	}
}

func TestProblemsConcurrently(t *testing.T) {
	p := report.NewProblems()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				s := fmt.Sprint(i*j%90, "")
				p.Add(report.Problem{Code: "c", Subject: s})
				p.List()
				p.Clear("c", s)
			}
		})
	}
	wg.Wait()
	if l := p.List(); len(l) != 0 {
		t.Errorf("%d problems left", len(l))
	}
}
