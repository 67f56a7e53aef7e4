package layer

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// manyFound is a view of n small members, frames and deflate streams.
func manyFound(tb testing.TB, n int) *Spooled {
	tb.Helper()
	r := rand.New(rand.NewPCG(1, 60))
	var found []Found
	end := int64(0)
	for range n {
		m := Member{Off: end + r.Int64N(3), Packed: 100 + r.Int64N(400), Plain: 1 + r.Int64N(900), Wrap: Bare}
		f := Found{Member: m}
		if r.IntN(3) > 0 {
			f.Wrap = Zstd
			for at := int64(0); at < m.Plain; {
				at = min(m.Plain, at+1+r.Int64N(400))
				f.Parse += 1 + r.Int64N(50)
				f.Units = append(f.Units, Unit{Plain: at, Parse: f.Parse})
			}
		}
		found = append(found, f)
		end = m.Off + m.Packed
	}
	v, err := NewSpooled(bytes.NewReader(make([]byte, end+7)), found, NewSpools(tb.TempDir()), 1<<40)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// needOf is Need by walking through all members.
func needOf(s *Spooled, to int64) (need, used int64) {
	for i := range s.found {
		f, at := &s.found[i], to-s.at[i]
		if at <= 0 {
			break
		}
		if at >= f.Plain {
			need += f.Parse
			used = need
			continue
		}
		before := int64(0)
		for _, u := range f.Units {
			if u.Plain >= at {
				return need + u.Parse, used + before
			}
			before = u.Parse
		}
	}
	return need, used
}

// atOf is At by walking through all members.
func atOf(s *Spooled, off int64) int64 {
	at := off
	for i := range s.found {
		if s.found[i].Off <= off {
			at += s.found[i].Plain - s.found[i].Packed
		}
	}
	return at
}

func TestSpooledPlaces(t *testing.T) {
	for _, n := range []int{0, 1, 2, 50} {
		s := manyFound(t, n)
		for to := int64(0); to <= s.Main(); to++ {
			need, used := s.Need(to)
			if n, u := needOf(s, to); need != n || used != u {
				t.Fatalf("%d members: Need(%d) = %d, %d, want %d, %d", len(s.found), to, need, used, n, u)
			}
		}
		end := int64(0)
		for i := range s.found {
			for off := end; off < s.found[i].Off; off++ {
				if got, want := s.At(off), atOf(s, off); got != want {
					t.Fatalf("At(%d) = %d, want %d", off, got, want)
				}
			}
			end = s.found[i].end()
		}
		if got, want := s.At(end+3), atOf(s, end+3); got != want {
			t.Fatalf("At(%d) = %d, want %d", end+3, got, want)
		}
	}
}

// BenchmarkSpooled asks for each member of a view: the time of one question must not grow
// with the members.
func BenchmarkSpooled(b *testing.B) {
	for _, n := range []int{1_000, 8_000, 32_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := manyFound(b, n)
			for i := 0; b.Loop(); i++ {
				at := s.at[i*7919%n]
				s.Need(at)
				s.At(s.found[i*7919%n].Off)
			}
		})
	}
}
