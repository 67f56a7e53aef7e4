//go:build netns

package testnet_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"updraft/testnet"
)

// The devices of this file look for releases by themselves, as those in the field do.

// start starts agents at once.
func start(t *testing.T, s *testnet.Site, names []string) time.Time {
	t.Helper()
	begun := time.Now()
	if err := s.Start(names, "--poll", "15m"); err != nil {
		t.Fatal(err)
	}
	return begun
}

// arrivals waits until a release is in service on devices, checks it there, and returns how long after begun each had it.
func arrivals(t *testing.T, s *testnet.Site, r *testnet.Release, names []string, begun time.Time, within time.Duration) []time.Duration {
	t.Helper()
	at := make(map[string]time.Duration)
	for len(at) < len(names) && time.Since(begun) < within {
		time.Sleep(20 * time.Millisecond)
		for _, name := range names {
			if to, err := os.Readlink(filepath.Join(s.Data(name), "current")); err == nil && filepath.Base(to) == r.Version && at[name] == 0 {
				at[name] = time.Since(begun)
			}
		}
	}
	var out []time.Duration
	for _, name := range names {
		if at[name] == 0 {
			t.Errorf("%s does not have %s after %v", name, r.Version, within)
			continue
		}
		if sum, err := testnet.Digest(filepath.Join(s.Data(name), "current", "app")); err != nil || sum != r.Digest {
			t.Errorf("%s has something else in service: %v", name, err)
		}
		out = append(out, at[name])
	}
	slices.Sort(out)
	return out
}

// TestNetnsLateJoiner starts a device when all others are done: it gets everything from them, metadata too.
func TestNetnsLateJoiner(t *testing.T) {
	const within = 6500 * time.Millisecond // its link alone takes 5.6 s
	in := prepare(t)
	s := site(t, in, testnet.Config{Devices: 4})
	r := publish(t, s, "1.0.0", in.large)
	names := s.Nodes()
	early, late := names[:3], names[3:]
	arrivals(t, s, r, early, start(t, s, early), time.Minute)
	before := s.Uplink()
	took := arrivals(t, s, r, late, start(t, s, late), time.Minute)
	t.Logf("done after %v, %d bytes on the uplink", took, s.Uplink()-before)
	if t.Failed() {
		return
	}
	if took[0] > within {
		t.Errorf("done %v after its start, at most %v are allowed", took[0], within)
	}
	if n := s.Uplink() - before; n > 16<<10 {
		t.Errorf("a late joiner cost %d bytes on the uplink", n)
	}
	st, err := s.Status(t.Context(), late[0])
	if err != nil || st.Bytes.LANIn < 64<<20 || st.Bytes.Uplink > r.Metadata {
		t.Errorf("%s received %d bytes from the others and %d from the origin, %v", late[0], st.Bytes.LANIn, st.Bytes.Uplink, err)
	}
}

// TestNetnsManyAtOnce starts fifty devices within a second, where a release is from the start, or comes when they are there.
func TestNetnsManyAtOnce(t *testing.T) {
	const devices, ratio, straggler = 50, 1.06, 3 * time.Second
	in := prepare(t)
	for _, c := range []struct {
		name  string
		later bool
	}{{"release from the start", false}, {"release later", true}} {
		t.Run(c.name, func(t *testing.T) {
			s := site(t, in, testnet.Config{Devices: devices})
			names := s.Nodes()
			var r *testnet.Release
			if !c.later {
				r = publish(t, s, "1.0.0", in.large)
			}
			before := s.Uplink()
			begun := start(t, s, names)
			started := time.Since(begun)
			if c.later {
				time.Sleep(15 * time.Second) // they have found each other, and nothing at the origin
				r = publish(t, s, "1.0.0", in.large)
				begun = time.Now()
				updraft(t, in, "check", "--data", s.Data(names[0]))
			}
			took := arrivals(t, s, r, names, begun, 2*time.Minute)
			if t.Failed() {
				return
			}
			needed := r.Needed(nil)
			got := float64(s.Uplink()-before) / float64(needed)
			first, half, last := took[0], took[len(took)/2], took[len(took)-1]
			t.Logf("started in %v; the first is done after %v, half after %v, the last after %v; uplink %.4f", started, first, half, last, got)
			for _, name := range names {
				if st, err := s.Status(t.Context(), name); err == nil && st.Bytes.Uplink > 16<<10 {
					t.Logf("%d bytes by %s", st.Bytes.Uplink, name)
				}
			}
			if got > ratio {
				t.Errorf("the uplink carried %.4f of what was needed", got)
			}
			if last > half+straggler {
				t.Errorf("the last device is done %v after half of them", last-half)
			}
		})
	}
}
