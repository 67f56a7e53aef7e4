package release_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updraft/delta/release"
)

// TestTampering changes a byte of each file in turn: signed ones fail to verify,
// others do not match their digest. The known release stays, and the next good
// source is taken.
func TestTampering(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	d := newDevice(t, f.root)
	d.want(f.fetch, f.now, "1")
	for _, target := range []string{"timestamp.json", "snapshot.json", "targets.json", "stable.json", "rpi4", "root.json"} {
		for name, spoil := range map[string]func(b []byte) []byte{
			"value":     func(b []byte) []byte { return bytes.Replace(b, []byte("20"), []byte("30"), 1) }, // a date, or a digest
			"signature": func(b []byte) []byte { return bytes.Replace(b, []byte(`"sig":"`), []byte(`"sig":"00`), 1) },
			"cut":       func(b []byte) []byte { return b[:len(b)-2] },
			"empty":     func([]byte) []byte { return nil },
			"unsigned":  func(b []byte) []byte { return unsigned(t, b) },
			"endless":   func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), 5<<20)...) },
			"binary":    func(b []byte) []byte { b[0] ^= 0x80; return b },
		} {
			if target == "rpi4" && (name == "signature" || name == "unsigned" || name == "value") {
				continue // a manifest has no such thing
			}
			if target == "root.json" {
				if err := f.repo.Rotate("root"); err != nil {
					t.Fatal(err)
				}
			}
			if target == "targets.json" {
				f.publish("c"+strings.ToLower(name), "1")
			}
			f.publish("stable", "1.1-"+name+"-"+target, "rpi4")
			m, _, err := d.Known("stable", "rpi4")
			if err != nil {
				t.Fatal(err)
			}
			f.tamper = func(file string, b []byte) ([]byte, error) {
				if roleFile(file) == target || target == "rpi4" && strings.HasSuffix(file, ".rpi4") {
					return spoil(bytes.Clone(b)), nil
				}
				return b, nil
			}
			_, err = d.update(f.fetch, f.now, "stable", "rpi4")
			if !errors.Is(err, release.ErrSignature) && !errors.Is(err, release.ErrCorrupt) && !errors.Is(err, release.ErrTooLarge) {
				t.Errorf("%s, %s: %v", target, name, err)
			}
			if name == "endless" && !errors.Is(err, release.ErrTooLarge) {
				t.Errorf("%s: endless data: %v", target, err)
			}
			if name == "unsigned" && !errors.Is(err, release.ErrSignature) {
				t.Errorf("%s: no signature: %v", target, err)
			}
			if k, _, err := d.Known("stable", "rpi4"); err != nil || k.Version != m.Version {
				t.Errorf("%s, %s: known is %v, %v", target, name, k, err)
			}
			f.tamper = nil
			d.want(f.fetch, f.now, "1.1-"+name+"-"+target)
		}
	}
}

// unsigned removes all signatures.
func unsigned(t *testing.T, b []byte) []byte {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	m["signatures"] = []any{}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestOtherFleet: whole, well signed metadata of someone else.
func TestOtherFleet(t *testing.T) {
	t.Parallel()
	f, other := newFleet(t), newFleet(t)
	f.publish("stable", "1", "rpi4")
	other.publish("stable", "2", "rpi4")
	other.publish("stable", "3", "rpi4")
	d := newDevice(t, f.root)
	d.want(f.fetch, f.now, "1")
	d.refuse(other.fetch, f.now, release.ErrSignature, "1")
	d.want(f.fetch, f.now, "1")
}

func TestRollback(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	old := f.snapshot()
	f.publish("stable", "2", "rpi4")
	d := newDevice(t, f.root)
	d.want(f.fetch, f.now, "2")
	d.refuse(from(old), f.now, release.ErrRollback, "2")
	d.reopen()
	d.refuse(from(old), f.now, release.ErrRollback, "2")

	// One old file at a time, under the name of the new one.
	before := f.snapshot()
	f.publish("stable", "3", "rpi4")
	for newName, oldName := range map[string]string{"metadata/4.snapshot.json": "metadata/2.snapshot.json", "metadata/3.stable.json": "metadata/1.stable.json"} {
		mixed := f.snapshot()
		if mixed[newName] == nil || old[oldName] == nil {
			t.Fatal(newName, oldName)
		}
		mixed[newName] = old[oldName]
		d := newDevice(t, f.root)
		d.want(from(before), f.now, "2")
		d.refuse(from(mixed), f.now, release.ErrMixAndMatch, "2")
		d.want(f.fetch, f.now, "3")
	}
}

// TestSnapshotRollback: the holder of the snapshot and timestamp keys offers the
// old channel file in new metadata.
func TestSnapshotRollback(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(f.dir)); err != nil {
		t.Fatal(err)
	}
	f.publish("stable", "2", "rpi4")
	d := newDevice(t, f.root)
	d.want(f.fetch, f.now, "2")
	// The copy goes its own way, to higher versions of timestamp and snapshot.
	f.dir = copied
	repo, err := release.OpenRepo(copied, f.keys, f.options())
	if err != nil {
		t.Fatal(err)
	}
	f.repo = repo
	for range 4 {
		f.publish("other", version(int(f.sequence)), "x")
	}
	d.refuse(f.fetch, f.now, release.ErrRollback, "2")
	if err := os.RemoveAll(filepath.Join(d.dir, "metadata")); err != nil { // also when only the floor remembers
		t.Fatal(err)
	}
	d.reopen()
	d.refuse(f.fetch, f.now, release.ErrRollback, "2")
}

// TestManifestRollback: whoever has the channel's key offers an older manifest, or
// another one with the same sequence.
func TestManifestRollback(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "x86_64")
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(f.dir)); err != nil {
		t.Fatal(err)
	}
	f.publish("stable", "2", "rpi4")
	f.publish("stable", "3", "rpi4")
	d := newDevice(t, f.root)
	d.want(f.fetch, f.now, "3") // sequence 3
	f.dir = copied
	repo, err := release.OpenRepo(copied, f.keys, f.options())
	if err != nil {
		t.Fatal(err)
	}
	f.repo = repo
	for i := range 4 { // versions of the metadata above those accepted
		f.sequence = uint64(i + 1)
		f.publish("stable", version(i), "x86_64")
	}
	for version, sequence := range map[string]uint64{"old": 2, "twin": 3} {
		f.sequence = sequence - 1
		if err := f.repo.SignAs("stable/rpi4", f.manifest("stable", version, "rpi4"), sequence); err != nil {
			t.Fatal(err)
		}
		d.refuse(f.fetch, f.now, release.ErrRollback, "3")
	}
	f.sequence = 10
	f.publish("stable", "4", "rpi4")
	d.want(f.fetch, f.now, "4")
}

// TestFastForward: versions signed far too high with a stolen key do not lock the
// fleet out once the keys are rotated.
func TestFastForward(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	good := t.TempDir()
	if err := os.CopyFS(good, os.DirFS(f.dir)); err != nil {
		t.Fatal(err)
	}
	d := newDevice(t, f.root)
	for range 5 { // the thief signs ahead
		if _, err := f.repo.Refresh(); err != nil {
			t.Fatal(err)
		}
		f.publish("other", version(int(f.sequence)))
	}
	d.want(f.fetch, f.now, "1")
	f.dir = good
	repo, err := release.OpenRepo(good, f.keys, f.options())
	if err != nil {
		t.Fatal(err)
	}
	f.repo = repo
	d.refuse(f.fetch, f.now, release.ErrRollback, "1")
	for _, role := range []string{"timestamp", "snapshot"} {
		if err := repo.Rotate(role); err != nil {
			t.Fatal(err)
		}
	}
	d.want(f.fetch, f.now, "1")
}

// TestFastForwardOfTime: times far ahead, signed with stolen keys, lock no device out
// once the keys are rotated; that of a channel says nothing about time.
func TestFastForwardOfTime(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	early, late := newDevice(t, f.root), newDevice(t, f.root)
	early.want(f.fetch, f.now, "1")
	f.now = time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)
	evil := f.manifest("stable", "evil", "rpi4")
	f.now = start
	if err := f.repo.SignAs("stable/rpi4", evil, 2); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*device{early, late} {
		d.want(f.fetch, f.now, "evil")
		if now := d.Now(f.now); !now.Equal(f.now) {
			t.Errorf("after what a channel's key signed it is %s", now)
		}
	}

	good := t.TempDir()
	if err := os.CopyFS(good, os.DirFS(f.dir)); err != nil {
		t.Fatal(err)
	}
	f.now = start.Add(300 * day)
	offline := filepath.Join(f.keys, "targets.key")
	if err := os.Rename(offline, offline+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.repo.Refresh(); err != nil { // the thief signs ahead
		t.Fatal(err)
	}
	if err := os.Rename(offline+".away", offline); err != nil {
		t.Fatal(err)
	}
	early.want(f.fetch, start, "evil")
	f.dir, f.now = good, start.Add(day)
	repo, err := release.OpenRepo(good, f.keys, f.options())
	if err != nil {
		t.Fatal(err)
	}
	f.repo = repo
	for _, role := range []string{"timestamp", "snapshot", "stable"} {
		if err := repo.Rotate(role); err != nil {
			t.Fatal(err)
		}
	}
	f.publish("stable", "3", "rpi4")
	for _, d := range []*device{early, late} {
		d.want(f.fetch, f.now, "3")
		d.reopen()
		if now := d.Now(f.now); !now.Equal(f.now) {
			t.Errorf("after the keys were rotated it is %s", now)
		}
		d.want(f.fetch, time.Unix(0, 0), "3")
		d.refuse(f.fetch, f.now.Add(57*day), release.ErrExpired, "3")
	}
}

// TestPublisherClockAhead: what was signed on a day on which the publisher's clock was far
// ahead is undone by other keys of the timestamp or the snapshot, however they come, and by
// nothing else.
func TestPublisherClockAhead(t *testing.T) {
	t.Parallel()
	for name, mend := range map[string]func(f *fleet) error{
		"timestamp": func(f *fleet) error { return f.repo.Rotate("timestamp") },
		"snapshot":  func(f *fleet) error { return f.repo.Rotate("snapshot") },
		"interrupted": func(f *fleet) error {
			f.repo.SetStep(func(name string) error {
				if name == release.TimestampName {
					return os.ErrClosed
				}
				return nil
			})
			if err := f.repo.Rotate("timestamp"); !errors.Is(err, os.ErrClosed) {
				return fmt.Errorf("not interrupted: %w", err)
			}
			return f.reopen()
		},
		"ceremony": func(f *fleet) error {
			key, err := release.ReadKey(filepath.Join(f.keys, "root.key"))
			if err != nil {
				return err
			}
			return f.repo.ImportRoot(signed(f.t, f.next(release.RootChange{Rotate: []string{"timestamp"}}), key))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			f.publish("stable", "1", "rpi4")
			d := newDevice(t, f.root)
			f.now = start.Add(300 * day)
			if _, err := f.repo.Refresh(); err != nil {
				t.Fatal(err)
			}
			d.want(f.fetch, start, "1")
			f.now = start.Add(day)
			if err := f.reopen(); err != nil {
				t.Fatal(err)
			}
			_, refreshed := f.repo.Refresh()
			for what, err := range map[string]error{"refresh": refreshed, "root": f.repo.Rotate("root"), "targets": f.repo.Rotate("targets")} {
				if !errors.Is(err, release.ErrClock) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if err := mend(f); err != nil {
				t.Fatal(err)
			}
			f.publish("stable", "2", "rpi4")
			d.want(f.fetch, f.now, "2")
			if now := d.Now(f.now); !now.Equal(f.now) {
				t.Errorf("it is %s", now)
			}
		})
	}
}

// TestCreepingTime: a thief of the timestamp key who signs a time that is ahead, and a second
// more at each look, hides the root that replaces the key for a day of the device's own clock
// at most; from a device without one until it starts again.
func TestCreepingTime(t *testing.T) {
	t.Parallel()
	const between = 2 * time.Hour // looks
	for _, c := range []struct {
		name  string
		clock func(now time.Time, look int) time.Time
		start int // looks from one start to the next
	}{
		{"clock", func(now time.Time, _ int) time.Time { return now }, 100},
		{"none", func(now time.Time, _ int) time.Time { return time.Unix(0, 0).Add(now.Sub(start)) }, 100},
		{"none, starts often", func(_ time.Time, look int) time.Time { return time.Unix(0, 0).Add(time.Duration(look%3) * between) }, 3},
	} {
		f := newFleet(t)
		f.publish("stable", "1", "rpi4")
		d := newDevice(t, f.root)
		stolen, keys := t.TempDir(), t.TempDir()
		if err := os.CopyFS(stolen, os.DirFS(f.dir)); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"timestamp.key", "snapshot.key"} {
			b, err := os.ReadFile(filepath.Join(f.keys, name))
			if err = errors.Join(err, os.WriteFile(filepath.Join(keys, name), b, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		signed := start.Add(50 * day)
		thief, err := release.OpenRepo(stolen, keys, release.RepoOptions{Now: func() time.Time { return signed }})
		if err != nil {
			t.Fatal(err)
		}
		fetch := func(_ context.Context, name string, _ int64) ([]byte, error) {
			dir := stolen
			if roleFile(name) == "root.json" {
				dir = f.dir
			}
			return os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		}
		look := 0
		next := func() error {
			if look++; look%c.start == 0 {
				d.reopen()
			}
			f.now, signed = f.now.Add(between), signed.Add(time.Second)
			if _, err := thief.Refresh(); err != nil {
				t.Fatal(err)
			}
			_, err := d.update(fetch, c.clock(f.now, look), "stable", "rpi4")
			return err
		}
		for range 2 {
			if err := next(); err != nil {
				t.Fatal(c.name, err)
			}
		}
		for _, role := range []string{"timestamp", "snapshot"} {
			if err := f.repo.Rotate(role); err != nil {
				t.Fatal(err)
			}
		}
		most, n := int(day/between), 1
		for err = next(); err == nil && n <= most; n++ {
			err = next()
		}
		if !errors.Is(err, release.ErrSignature) || n > min(most, c.start) {
			t.Errorf("%s: after %d looks %v", c.name, n, err)
		}
	}
}

// TestFreezeAcrossStarts: on a device without a clock that is switched off each night, time
// passes while it is on. That is written once an hour, nowhere else, and falls with the keys.
func TestFreezeAcrossStarts(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	old := f.snapshot()
	d := newDevice(t, f.root)
	writes := func(clock time.Time) (n int) {
		t.Helper()
		floor := func() string {
			b, err := os.ReadFile(filepath.Join(d.dir, "floor"))
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		d.want(f.fetch, clock, "1")
		for before := floor(); clock.Hour() < 16; before = floor() {
			clock = clock.Add(10 * time.Minute)
			d.want(f.fetch, clock, "1")
			if floor() != before {
				n++
			}
		}
		return n
	}
	if n := writes(start); n != 0 {
		t.Errorf("with a clock: written %d times in 4 hours", n)
	}
	boot := time.Unix(0, 0).UTC()
	if n := writes(boot.Add(12 * time.Hour)); n != 4 {
		t.Errorf("without one: written %d times in 4 hours", n)
	}
	days := 0
	var err error
	for ; err == nil && days < 200; days++ {
		d.reopen()
		for hour := 0; hour <= 12 && err == nil; hour += 6 {
			_, err = d.update(from(old), boot.Add(time.Duration(hour)*time.Hour), "stable", "rpi4")
		}
	}
	if !errors.Is(err, release.ErrExpired) || days != 2*56 {
		t.Errorf("on the %dth day, of which it is on for a half: %v", days, err)
	}
	d.reopen()
	d.refuse(from(old), boot, release.ErrExpired, "1")
	f.now = start.Add(day)
	if err := f.repo.Rotate("timestamp"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d.want(f.fetch, boot, "1")
		if now := d.Now(boot); !now.Equal(f.now) {
			t.Errorf("after the key was replaced it is %v", now)
		}
		d.reopen()
	}
}

// TestTimeOfEnrollment: that a device was enrolled late counts before it has seen anything
// signed, and that it was enrolled by a clock that was ahead does until keys are replaced.
func TestTimeOfEnrollment(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	d := newDevice(t, f.root)
	begin := func(signed time.Time) {
		t.Helper()
		d.reopen()
		if err := d.Advance(signed); err != nil {
			t.Fatal(err)
		}
	}
	begin(start.Add(50 * day))
	d.want(f.fetch, time.Unix(0, 0), "1")
	f.now = start.Add(51 * day)
	ahead := start.Add(300 * day)
	begin(ahead)
	d.refuse(f.fetch, f.now, release.ErrExpired, "1")
	if err := f.repo.Rotate("targets"); err != nil {
		t.Fatal(err)
	}
	d.refuse(f.fetch, f.now, release.ErrExpired, "1")
	if err := f.repo.Rotate("timestamp"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d.want(f.fetch, f.now, "1")
		begin(ahead)
		if now := d.Now(f.now); !now.Equal(f.now) {
			t.Errorf("after the key was replaced it is %v", now)
		}
	}
}

// TestCertificateTime: certificates end by the clock, whatever time is signed; by that only
// where the clock is late, and not after the device's own has ended.
func TestCertificateTime(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	d := newDevice(t, f.root)
	f.now = start.Add(40 * day) // the fleet's clock, or that of a thief
	if _, err := f.repo.Refresh(); err != nil {
		t.Fatal(err)
	}
	d.want(f.fetch, start, "1")
	from, to := start.Add(10*day), start.Add(60*day)
	for _, c := range []struct{ clock, to, want time.Time }{
		{from, to, from},
		{start.Add(90 * day), to, start.Add(90 * day)},
		{start.Add(9 * day), to, f.now},
		{time.Unix(0, 0), to, f.now},
		{time.Unix(0, 0), start.Add(30 * day), start.Add(30 * day)},
		{time.Unix(0, 0), start, from},
	} {
		if got := d.CertificateTime(c.clock, from, c.to); !got.Equal(c.want) {
			t.Errorf("clock %v, certificate until %v: %v, want %v", c.clock, c.to, got, c.want)
		}
	}
	if got := d.CertificateTime(start.Add(-day), time.Time{}, to); !got.Equal(f.now) {
		t.Errorf("before the root was signed: %v", got)
	}
}

// TestStolenChannelKey: a manifest with a sequence far too high does not lock the
// channel once its key is rotated.
func TestStolenChannelKey(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	d := newDevice(t, f.root)
	f.sequence = 1 << 40
	if err := f.repo.SignAs("stable/rpi4", f.manifest("stable", "evil", "rpi4"), 1<<40); err != nil {
		t.Fatal(err)
	}
	d.want(f.fetch, f.now, "evil")
	if err := f.repo.Rotate("stable"); err != nil {
		t.Fatal(err)
	}
	f.sequence = 1
	if err := f.repo.SignAs("stable/rpi4", f.manifest("stable", "2", "rpi4"), 2); err != nil {
		t.Fatal(err)
	}
	d.want(f.fetch, f.now, "2")
}

func TestWrongManifest(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	canary := f.manifest("canary", "2", "rpi4")
	d := newDevice(t, f.root)
	d.want(f.fetch, f.now, "1")
	if err := f.repo.SignAs("stable/rpi4", canary, 2); err != nil { // by the channel's own key
		t.Fatal(err)
	}
	d.refuse(f.fetch, f.now, release.ErrWrongChannel, "1")
	if err := f.repo.SignAs("stable/rpi4", f.manifest("stable", "3", "x86_64"), 3); err != nil {
		t.Fatal(err)
	}
	d.refuse(f.fetch, f.now, release.ErrWrongType, "1")
	if err := f.repo.SignAs("stable/rpi4", []byte("no manifest"), 4); err != nil {
		t.Fatal(err)
	}
	d.refuse(f.fetch, f.now, release.ErrManifest, "1")
	// What is wrong with it as it was signed is told from what may be missing or altered.
	for _, c := range []struct {
		answer error
		judged bool
	}{{nil, true}, {release.ErrNotFound, false}} {
		_, _, err := d.Release(t.Context(), "stable", "rpi4", func(ctx context.Context, name string, limit int64) ([]byte, error) {
			if !strings.HasSuffix(name, ".json") && c.answer != nil {
				return nil, c.answer
			}
			return f.fetch(ctx, name, limit)
		})
		if j := new(release.JudgedError); errors.As(err, &j) != c.judged || err == nil {
			t.Errorf("judged %v: %v", !c.judged, err)
		}
	}
	// A channel's key signs for another channel: nobody asks it about that one.
	if err := f.repo.SignAs("canary/rpi4", canary, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := d.update(f.fetch, f.now, "canary", "rpi4"); !errors.Is(err, release.ErrNoRelease) {
		t.Error(err)
	}
}

func TestFreeze(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	d := newDevice(t, f.root)
	d.want(f.fetch, f.now, "1")
	d.want(f.fetch, f.now.Add(55*day), "1")
	d.refuse(f.fetch, f.now.Add(57*day), release.ErrExpired, "1")
	var e *release.ExpiredError
	err := d.Refresh(context.Background(), f.fetch, f.now.Add(57*day))
	if !errors.As(err, &e) || e.File != "timestamp.json" || !e.Expires.Equal(f.now.Add(56*day)) || errors.Is(err, release.ErrClock) {
		t.Errorf("%+v", err)
	}
	fresh := newDevice(t, f.root)
	fresh.refuse(f.fetch, f.now.Add(57*day), release.ErrExpired, "")
	if fresh.Version() != 0 {
		t.Error("took expired metadata")
	}
	f.now = f.now.Add(60 * day)
	roles, err := f.repo.Refresh()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(roles)
	d.want(f.fetch, f.now, "1")
	// Each role by itself: what is signed rarely expires last.
	for i := range 3 {
		f.now = f.now.Add(300 * day)
		if roles, err = f.repo.Refresh(); err != nil {
			t.Fatal(err)
		}
		t.Log(i, roles)
		d.want(f.fetch, f.now, "1")
	}
	// Without the channel's key its file runs out.
	if err := os.Remove(filepath.Join(f.keys, "channel-stable.key")); err != nil {
		t.Fatal(err)
	}
	f.now = f.now.Add(200 * day)
	if _, err := f.repo.Refresh(); err != nil {
		t.Fatal(err)
	}
	f.now = f.now.Add(170 * day)
	if _, err := f.repo.Refresh(); err != nil {
		t.Fatal(err)
	}
	d.refuse(f.fetch, f.now, release.ErrExpired, "1")
	if list := f.repo.Expiries(); list[0].Role != "stable" || list[0].Key || !list[0].Expires.Before(f.now) {
		t.Errorf("%+v", list)
	}
}

func TestClocks(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	early := time.Date(1970, 1, 1, 0, 1, 0, 0, time.UTC)
	d := newDevice(t, f.root)
	d.want(f.fetch, early, "1")
	if got := d.Now(early); got.Before(start) {
		t.Errorf("time is %s", got)
	}
	// Time passes from the signed time on.
	if got := d.Now(early.Add(57 * day)); got.Before(start.Add(57 * day)) {
		t.Errorf("time is %s", got)
	}
	d.refuse(f.fetch, early.Add(57*day), release.ErrExpired, "1")

	// Frozen in the past: the device has seen a later signature.
	old := f.snapshot()
	e := newDevice(t, f.root)
	if err := e.Advance(start.Add(100 * day)); err != nil {
		t.Fatal(err)
	}
	e.refuse(from(old), early, release.ErrExpired, "")
	e.reopen()
	e.refuse(from(old), early, release.ErrExpired, "")
	f.now = start.Add(100 * day)
	if _, err := f.repo.Refresh(); err != nil {
		t.Fatal(err)
	}
	e.want(f.fetch, early, "1")
	if !e.Signed().Equal(f.now) {
		t.Error(e.Signed())
	}

	// Late by decades: the clock is named, nothing is lost, and it heals.
	late := time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 2 {
		e.refuse(f.fetch, late, release.ErrClock, "1")
		e.refuse(f.fetch, late, release.ErrExpired, "1")
		e.reopen()
	}
	fresh := newDevice(t, f.root)
	fresh.refuse(f.fetch, late, release.ErrClock, "")
	if err := fresh.Refresh(context.Background(), f.fetch, late); err == nil || !strings.Contains(err.Error(), "2099-01-01") {
		t.Error(err)
	}
	e.want(f.fetch, f.now, "1")
	fresh.want(f.fetch, f.now, "1")

	// The publisher's clock.
	f.now = early
	if err := f.repo.AddRelease(f.manifest("stable", "2")); !errors.Is(err, release.ErrClock) {
		t.Error(err)
	}
}
