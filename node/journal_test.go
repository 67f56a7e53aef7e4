package node_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"updraft/node"
	"updraft/swarm/wire"
)

// journal counts the records of a device's log, as a journal on flash would take them.
type journal struct {
	mu *sync.Mutex
	by map[string]int // by message
}

func (j journal) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (j journal) WithAttrs([]slog.Attr) slog.Handler           { return j }
func (j journal) WithGroup(string) slog.Handler                { return j }
func (j journal) Handle(_ context.Context, r slog.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.by[r.Message]++
	return nil
}

// TestJournalOfAFlood: what a member says over and over again does not go to the journal,
// and so to the flash, each time.
func TestJournalOfAFlood(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 300<<10)))
	j := journal{new(sync.Mutex), map[string]int{}}
	a := s.start(s.enroll(func(cfg *node.Config) { cfg.Log = slog.New(j) }))
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	_, _, st, r := s.join(t, "eager", a.node.Addrs()[0])
	var in wire.Interest
	for in.Count == 0 {
		typ, body, err := wire.ReadFrame(r, 1<<20, nil)
		if err == nil && typ == wire.TypeInterest {
			in, err = wire.ParseInterest(body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		for {
			if _, _, err := wire.ReadFrame(r, 1<<20, nil); err != nil {
				return
			}
		}
	}()
	for i := range 2000 {
		b := wire.AppendInterest(nil, wire.Interest{ID: in.ID, Count: in.Count + 1, Flags: wire.FlagAll})
		if i%10 == 0 {
			b = wire.AppendProfile(b, wire.Profile{Node: []byte{0xff, byte(i), byte(i >> 8)}})
		}
		if _, err := st.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	const table, profile = "member has another table for an object", "member with an unreadable profile"
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		j.mu.Lock()
		tables, profiles := j.by[table], j.by[profile]
		j.mu.Unlock()
		if tables > 1 || profiles > 1 {
			t.Fatalf("%d and %d records", tables, profiles)
		}
		if tables == 1 && profiles == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d and %d records: not noticed at all", tables, profiles)
		}
	}
	time.Sleep(time.Second) // the rest is read meanwhile
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.by[table] != 1 || j.by[profile] != 1 {
		t.Errorf("records: %v", j.by)
	}
}
