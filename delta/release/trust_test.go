package release_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"updraft/delta/release"
)

func TestUpdate(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	d := newDevice(t, f.root)
	if _, err := d.update(f.fetch, f.now, "stable", "rpi4"); !errors.Is(err, release.ErrNoRelease) {
		t.Fatalf("empty origin: %v", err)
	}
	f.publish("stable", "1", "rpi4")
	d.want(f.fetch, f.now, "1")
	d.want(f.fetch, f.now, "1")
	f.publish("stable", "2", "rpi4", "x86_64")
	d.want(f.fetch, f.now, "2")
	f.publish("stable", "3") // for any
	d.want(f.fetch, f.now, "3")
	f.publish("stable", "4", "x86_64")
	d.want(f.fetch, f.now, "3") // the one for another type is not ours
	f.publish("stable", "5", "rpi4")
	d.want(f.fetch, f.now, "5")
	f.publish("kiosk/stable", "9")
	if v, err := d.update(f.fetch, f.now, "kiosk/stable", "rpi4"); err != nil || v != "9" {
		t.Fatal(v, err)
	}
	if _, err := d.update(f.fetch, f.now, "nowhere", "rpi4"); !errors.Is(err, release.ErrNoRelease) {
		t.Fatal(err)
	}
	if _, err := d.update(f.fetch, f.now, "../x", "rpi4"); !errors.Is(err, release.ErrName) {
		t.Fatal(err)
	}
	d.reopen()
	d.want(f.fetch, f.now, "5")
}

// TestCost holds the bytes and requests of a check to what the uplink may carry.
func TestCost(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	d := newDevice(t, f.root)
	d.want(f.fetch, f.now, "1")
	req, n := f.measure()
	t.Logf("first: %d bytes, %v", n, req)

	d.want(f.fetch, f.now.Add(time.Hour), "1")
	if req, n = f.measure(); len(req) != 1 {
		t.Errorf("unchanged: %v", req)
	}
	t.Logf("unchanged: %d bytes, %v", n, req)

	f.publish("stable", "2", "rpi4")
	d.want(f.fetch, f.now.Add(time.Hour), "2")
	req, n = f.measure()
	if len(req) != 4 || n > 3000 {
		t.Errorf("update: %d bytes, %v", n, req)
	}
	for _, name := range req {
		info, err := os.Stat(filepath.Join(f.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("update: %4d bytes %s", info.Size(), name)
	}
	t.Logf("update: %d bytes", n)

	f.now = f.now.Add(day)
	if _, err := f.repo.Refresh(); err != nil {
		t.Fatal(err)
	}
	d.want(f.fetch, f.now.Add(-time.Hour), "2")
	if req, n = f.measure(); !slices.Equal(req, []string{"metadata/timestamp.json"}) {
		t.Errorf("signed again: %v", req)
	}
	t.Logf("signed again: %d bytes, %v", n, req)

	d.want(f.fetch, f.now.Add(2*day), "2") // once a day a newer root is asked for
	if req, _ = f.measure(); len(req) != 2 {
		t.Errorf("after a day: %v", req)
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	old, away := newDevice(t, f.root), newDevice(t, f.root)
	old.want(f.fetch, f.now, "1")
	away.want(f.fetch, f.now, "1")
	for i, role := range []string{"timestamp", "snapshot", "targets", "root", "timestamp"} {
		if err := f.repo.Rotate(role); err != nil {
			t.Fatal(role, err)
		}
		f.publish("stable", version(i), "rpi4")
		old.want(f.fetch, f.now, version(i))
	}
	// A year later, from a neighbour alone.
	away.want(old.peer, f.now, version(4))
	old.reopen()
	old.want(f.fetch, f.now, version(4))
	if err := f.repo.Rotate("stable"); err != nil {
		t.Fatal(err)
	}
	f.publish("stable", "5", "rpi4")
	old.want(f.fetch, f.now, "5")
	if err := f.repo.Rotate("nowhere"); !errors.Is(err, release.ErrName) {
		t.Error(err)
	}
	repo, err := release.OpenRepo(f.dir, f.keys, f.options())
	if err != nil {
		t.Fatal(err)
	}
	f.repo = repo
	f.publish("stable", "6", "rpi4")
	away.want(f.fetch, f.now, "6")
}

// TestOldRoots: a device that was enrolled before keys were rotated catches up from
// a neighbour that was enrolled afterwards.
func TestOldRoots(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for range 3 {
		if err := f.repo.Rotate("root"); err != nil {
			t.Fatal(err)
		}
	}
	f.publish("stable", "1", "rpi4")
	root, err := f.repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	young, old := newDevice(t, root), newDevice(t, f.root)
	young.want(f.fetch, f.now, "1")
	young.reopen()
	old.want(young.peer, f.now, "1")
	f.measure()
	for i, n := range []int{5, 2} { // once more for the old ones, since they were asked for
		young.want(f.fetch, f.now.Add(time.Duration(2+2*i)*day), "1")
		if req, _ := f.measure(); len(req) != n {
			t.Errorf("asks for old roots again: %v", req)
		}
	}
	// A forged one is not passed on, not even one that names the keys which have signed the next.
	second, err := young.File("metadata/2.root.json")
	if err != nil {
		t.Fatal(err)
	}
	likely, err := release.ForgeBefore(second, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, forged := range [][]byte{newFleet(t).root, likely} {
		f.tamper = func(name string, b []byte) ([]byte, error) {
			if name == "metadata/1.root.json" {
				return forged, nil
			}
			return b, nil
		}
		another := newDevice(t, root)
		another.want(f.fetch, f.now, "1")
		if _, err := another.File("metadata/1.root.json"); !errors.Is(err, release.ErrNotFound) {
			t.Error(err)
		}
		if _, err := another.File("metadata/2.root.json"); err != nil {
			t.Error(err)
		}
	}
}

// TestOldRootMadeUp: who has one root key of those it takes, and the origin, can have a
// device that was enrolled later keep an old root that is made up, but not for longer than
// he has the origin. One that was enrolled before takes it from nobody.
func TestOldRootMadeUp(t *testing.T) {
	t.Parallel()
	f := newQuorumFleet(t)
	for range 3 {
		if err := f.repo.Rotate("timestamp"); err != nil {
			t.Fatal(err)
		}
	}
	f.publish("stable", "1", "rpi4")
	root, err := f.repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	true3, err := os.ReadFile(filepath.Join(f.dir, "metadata", "3.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := release.ReadKey(filepath.Join(f.keys, "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	forged, err := release.ForgeBefore(root, key)
	if err != nil {
		t.Fatal(err)
	}
	f.tamper = func(name string, b []byte) ([]byte, error) {
		if name == "metadata/3.root.json" {
			return forged, nil
		}
		return b, nil
	}
	young, old := newDevice(t, root), newDevice(t, f.root)
	young.want(f.fetch, f.now, "1")
	if b, err := young.File("metadata/3.root.json"); err != nil || !bytes.Equal(b, forged) {
		t.Fatal("this device could not have known:", err)
	}
	old.refuse(young.peer, f.now, release.ErrSignature, "")
	f.tamper = nil
	young.want(f.fetch, f.now.Add(2*day), "1")
	for range 2 {
		if b, err := young.File("metadata/3.root.json"); err != nil || !bytes.Equal(b, true3) {
			t.Error("keeps what is made up:", err)
		}
		newDevice(t, f.root).want(young.peer, f.now, "1")
		young.reopen()
	}
	old.want(young.peer, f.now, "1")
}

// TestOldRootsWithheld: who serves a device cannot have it drop the old roots that it keeps for
// others, neither by another one in the place of one of them nor by none.
func TestOldRootsWithheld(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for _, role := range []string{"root", "timestamp", "root"} {
		if err := f.repo.Rotate(role); err != nil {
			t.Fatal(err)
		}
	}
	f.publish("stable", "1", "rpi4")
	root, err := f.repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	young := newDevice(t, root)
	young.want(f.fetch, f.now, "1")
	for i, withheld := range []string{"1", "2", "3"} {
		if _, err := young.File("metadata/2.root.json"); err != nil { // so that they are fetched anew
			t.Fatal(err)
		}
		f.tamper = func(name string, b []byte) ([]byte, error) {
			switch {
			case name == "metadata/"+withheld+".root.json":
				return nil, fs.ErrNotExist
			case strings.HasSuffix(name, ".root.json"):
				return append(bytes.Clone(b), bytes.Repeat([]byte{'\n'}, 1+i)...), nil // nobody signed that
			}
			return b, nil
		}
		young.want(f.fetch, f.now.Add(time.Duration(2+2*i)*day), "1")
		for range 2 {
			if _, err := young.File("metadata/1.root.json"); err != nil {
				t.Errorf("%s withheld: %v", withheld, err)
			}
			if v, err := newDevice(t, f.root).update(young.peer, f.now, "stable", "rpi4"); err != nil {
				t.Errorf("%s withheld, enrolled before: %q, %v", withheld, v, err)
			}
			young.reopen()
		}
	}
	if _, err := young.File("metadata/3.root.json"); err != nil {
		t.Fatal(err)
	}
	for i, n := range []int{3, 5, 2} { // until they have come
		f.measure()
		young.want(f.fetch, f.now.Add(time.Duration(10+2*i)*day), "1")
		if req, _ := f.measure(); len(req) != n {
			t.Errorf("asks for old roots: %v", req)
		}
		f.tamper = nil
	}
}

// peer fetches from this device as from a peer.
func (d *device) peer(_ context.Context, name string, _ int64) ([]byte, error) { return d.File(name) }

func TestPeerAlone(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("kiosk/stable", "1")
	a := newDevice(t, f.root)
	if _, err := a.update(f.fetch, f.now, "kiosk/stable", "rpi4"); err != nil {
		t.Fatal(err)
	}
	b := newDevice(t, f.root)
	if v, err := b.update(a.peer, f.now, "kiosk/stable", "rpi4"); err != nil || v != "1" {
		t.Fatal(v, err)
	}
	if a.Version() != b.Version() || a.Version() == 0 {
		t.Error(a.Version(), b.Version())
	}
	for name, want := range f.snapshot() {
		got, err := b.File(name)
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("%s differs", name)
		}
		if err != nil && (strings.Contains(name, "targets/") || name == "metadata/1.root.json") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "floor", "metadata/floor", "metadata/../floor", "../x", "metadata/1.timestamp.json", "metadata/99.root.json",
		"targets/stable/../../floor", "targets/kiosk/stable/" + strings.Repeat("0", 64) + ".any"} {
		if _, err := b.File(name); !errors.Is(err, release.ErrNotFound) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestMidRefresh: a peer that read the timestamp before a publication still gets
// the files it names.
func TestMidRefresh(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	a, b := newDevice(t, f.root), newDevice(t, f.root)
	a.want(f.fetch, f.now, "1")
	fetch := func(ctx context.Context, name string, limit int64) ([]byte, error) {
		got, err := a.File(name)
		if strings.HasSuffix(name, "timestamp.json") {
			f.publish("stable", "2", "rpi4")
			if err := a.Refresh(ctx, f.fetch, f.now); err != nil {
				t.Error(err)
			}
		}
		return got, err
	}
	b.want(fetch, f.now, "1")
}

func TestFloorsSurvive(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	old := f.snapshot()
	f.publish("stable", "2", "rpi4")
	f.publish("stable", "3", "rpi4")
	d := newDevice(t, f.root)
	d.want(f.fetch, f.now, "3")
	// All metadata is lost; the floors are not.
	if err := os.RemoveAll(filepath.Join(d.dir, "metadata")); err != nil {
		t.Fatal(err)
	}
	d.reopen()
	d.refuse(from(old), f.now, release.ErrRollback, "3")
	d.want(f.fetch, f.now, "3")
	// The floors are lost; the metadata is not.
	if err := os.Remove(filepath.Join(d.dir, "floor")); err != nil {
		t.Fatal(err)
	}
	d.reopen()
	d.refuse(from(old), f.now, release.ErrRollback, "")
	// Old metadata put back into the store is below the floors.
	d.want(f.fetch, f.now, "3")
	if err := os.WriteFile(filepath.Join(d.dir, "metadata", "timestamp.json"), old["metadata/timestamp.json"], 0o600); err != nil {
		t.Fatal(err)
	}
	d.reopen()
	if d.Version() != 0 {
		t.Error("took an old timestamp from the store")
	}
	d.refuse(from(old), f.now, release.ErrRollback, "3")
}

// TestAnotherFleet: enrolled in another fleet, a device follows that from its first root on,
// whatever it had accepted of the one before, also where it is not noted which that was. With
// another root of its own fleet its floors stay.
func TestAnotherFleet(t *testing.T) {
	t.Parallel()
	// forget takes from the store of a device what it began with, as before that was noted.
	forget := func(d *device) {
		t.Helper()
		if err := release.ForgetBegin(d.dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, noted := range []bool{true, false} {
		f := newFleet(t)
		first := f.snapshot()
		if err := f.repo.SetRevocations([]byte("list")); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := f.repo.Rotate("root"); err != nil {
				t.Fatal(err)
			}
		}
		f.publish("stable", "1", "rpi4")
		old := f.snapshot()
		f.publish("stable", "2", "rpi4")
		d := newDevice(t, f.root)
		d.want(f.fetch, f.now, "2")
		if _, err := d.Revocations(context.Background(), f.fetch, nil); err != nil {
			t.Fatal(err)
		}
		roots := [][]byte{old["metadata/3.root.json"], old["metadata/4.root.json"], append(bytes.Clone(old["metadata/2.root.json"]), '\n')}
		for _, d.root = range append(roots, f.root) { // enrolled anew in the same one
			if !noted {
				forget(d)
			}
			d.reopen()
			d.refuse(from(old), f.now, release.ErrRollback, "2")
			d.refuse(from(first), f.now, release.ErrRollback, "2")
		}
		d.want(f.fetch, f.now, "2")

		next := newFleet(t)
		next.publish("stable", "3", "rpi4")
		if !noted {
			forget(d)
		}
		for _, d.root = range [][]byte{next.root, f.root, next.root} { // there, back, and there
			d.reopen()
			if d.Version() != 0 {
				t.Error("keeps metadata of another fleet")
			}
			if _, _, err := d.Known("stable", "rpi4"); !errors.Is(err, release.ErrNoRelease) {
				t.Error(err)
			}
			if bytes.Equal(d.root, f.root) {
				d.want(f.fetch, f.now, "2")
				continue
			}
			d.want(next.fetch, next.now, "3")
			if b, err := d.Revocations(context.Background(), next.fetch, nil); b != nil || err != nil {
				t.Errorf("the list of another fleet: %q, %v", b, err)
			}
			d.reopen()
			d.want(next.fetch, next.now, "3")
		}
	}
}

// TestAnotherFleetInterrupted: power may fail, or the disk be full, at each step of beginning
// anew in another fleet: the device follows that, and knows nothing of the one before.
func TestAnotherFleetInterrupted(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	const all, noted = 3, 4 // all is forgotten; the new root is written as well
	for _, rotations := range [][2]int{{0, 0}, {3, 0}, {0, 3}} {
		fleets := [2]*fleet{newFleet(t), newFleet(t)}
		for i, n := range rotations {
			for range n {
				if err := fleets[i].repo.Rotate("root"); err != nil {
					t.Fatal(err)
				}
			}
		}
		f, next := fleets[0], fleets[1]
		next.tamper = func(name string, b []byte) ([]byte, error) {
			if roleFile(name) == "root.json" { // from before: they would replace those of f
				return nil, fs.ErrNotExist
			}
			return b, nil
		}
		if err := f.repo.SetRevocations([]byte("list")); err != nil {
			t.Fatal(err)
		}
		f.publish("stable", "1", "rpi4")
		next.publish("stable", "3", "rpi4")
		root, err := next.repo.Root()
		if err != nil {
			t.Fatal(err)
		}
		before := newDevice(t, f.root)
		before.want(f.fetch, f.now, "1")
		if _, err := before.Revocations(ctx, f.fetch, nil); err != nil {
			t.Fatal(err)
		}
		for step := range noted + 1 {
			for _, unnoted := range []bool{false, true} {
				if unnoted && step == 0 {
					continue // see TestAnotherFleet
				}
				d := &device{t: t, dir: t.TempDir(), root: root}
				if err := os.CopyFS(d.dir, os.DirFS(before.dir)); err != nil {
					t.Fatal(err)
				}
				if unnoted {
					if err := release.ForgetBegin(d.dir); err != nil {
						t.Fatal(err)
					}
				}
				if n, err := release.ForgetFleet(d.dir, min(step, all)); err != nil || n != all {
					t.Fatal(n, err)
				}
				if step == noted {
					name := fmt.Sprintf("%d.json", 1+rotations[1])
					if err := os.WriteFile(filepath.Join(d.dir, "roots", name), root, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				// follow does what a look does, and wants the version.
				follow := func(f *fleet, version string) {
					t.Helper()
					v, err := d.update(f.fetch, f.now, "stable", "rpi4")
					if err == nil {
						_, err = d.Revocations(ctx, f.fetch, nil)
					}
					if err != nil || v != version {
						t.Errorf("rotations %v, step %d, unnoted %v: %q, %v", rotations, step, unnoted, v, err)
					}
				}
				d.reopen()
				if b, err := d.KnownRevocations(); err != nil || b != nil {
					t.Errorf("rotations %v, step %d, unnoted %v: list of the fleet before: %q, %v", rotations, step, unnoted, b, err)
				}
				follow(next, "3")
				d.reopen()
				follow(next, "3")
				d.root = f.root
				d.reopen()
				follow(f, "1")
			}
		}
	}
}

// TestDamagedStore cuts, empties, garbles and removes each file of the store, in a
// running device and in one that starts.
func TestDamagedStore(t *testing.T) {
	t.Parallel()
	damage := map[string]func(b []byte) []byte{
		"cut":     func(b []byte) []byte { return b[:len(b)/2] },
		"empty":   func([]byte) []byte { return nil },
		"garbled": func(b []byte) []byte { b[len(b)/2] ^= 0x40; return b },
		"zeros":   func(b []byte) []byte { return make([]byte, len(b)) },
		"huge":    func(b []byte) []byte { return bytes.Repeat(b, 1+(2<<20)/len(b)) },
	}
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	if err := f.repo.Rotate("timestamp"); err != nil {
		t.Fatal(err)
	}
	for kind, spoil := range damage {
		for _, running := range []bool{false, true} {
			d := newDevice(t, f.root)
			d.want(f.fetch, f.now, "1")
			err := filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
				if err != nil || e.IsDir() {
					return err
				}
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				if err := os.WriteFile(path, spoil(b), 0o600); err != nil {
					return err
				}
				if !running {
					d.reopen()
				}
				name, _ := filepath.Rel(d.dir, path)
				if v, err := d.update(f.fetch, f.now, "stable", "rpi4"); err != nil || v != "1" {
					t.Errorf("%s, running %v, %s: %q, %v", kind, running, name, v, err)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			d.reopen()
			d.want(f.fetch, f.now, "1")
		}
	}
}

func TestOpenTrustRefuses(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for name, root := range map[string][]byte{"none": nil, "cut": f.root[:len(f.root)/2],
		"forged": bytes.Replace(f.root, []byte(`"version":1`), []byte(`"version":2`), 1), "huge": make([]byte, 1<<20)} {
		if _, err := release.OpenTrust(t.TempDir(), root); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func TestConcurrent(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	files := f.snapshot()
	d := newDevice(t, f.root)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if v, err := d.update(from(files), f.now, "stable", "rpi4"); err != nil || v != "1" {
					t.Error(v, err)
				}
				_, _ = d.File("metadata/timestamp.json")
				d.Now(f.now)
				if _, _, err := d.Known("stable", "rpi4"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestFetchErrors(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	d := newDevice(t, f.root)
	d.want(f.fetch, f.now, "1")
	f.publish("stable", "2", "rpi4")
	down := errors.New("uplink down")
	for _, role := range []string{"timestamp.json", "snapshot.json", "stable.json", "rpi4"} {
		f.tamper = func(name string, b []byte) ([]byte, error) {
			if strings.HasSuffix(name, role) {
				return nil, down
			}
			return b, nil
		}
		d.refuse(f.fetch, f.now, down, "1")
		d.reopen()
	}
	f.tamper = nil
	d.want(f.fetch, f.now, "2")
	if _, _, err := d.Known("stable", "x"); !errors.Is(err, release.ErrNoRelease) {
		t.Error(err)
	}
}

// TestUnwritable: where the store cannot be written, that is said, and what was published is
// in force: the list of revocations, too. It is written as soon as that works; a restart
// before then falls back to what was written, all of it.
func TestUnwritable(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, name := range []string{"floor", "metadata", "targets"} {
		for _, restart := range []bool{false, true} {
			f := newFleet(t)
			d := newDevice(t, f.root)
			// look does what a look does, and returns the list, the version and how often something was not kept.
			look := func() (list, version string, unkept int) {
				t.Helper()
				inForce := func(err error) {
					t.Helper()
					if errors.Is(err, release.ErrNotKept) {
						unkept++
					} else if err != nil {
						t.Fatal(name, err)
					}
				}
				inForce(d.Refresh(ctx, f.fetch, f.now))
				b, err := d.Revocations(ctx, f.fetch, nil)
				inForce(err)
				m, _, err := d.Release(ctx, "stable", "rpi4", f.fetch)
				inForce(err)
				return string(b), m.Version, unkept
			}
			known := func() (list, version string) {
				t.Helper()
				b, err := d.KnownRevocations()
				if err != nil {
					t.Fatal(name, err)
				}
				m, _, err := d.Known("stable", "rpi4")
				if err != nil {
					t.Fatal(name, err)
				}
				return string(b), m.Version
			}
			publish := func(list, version string) {
				t.Helper()
				if err := f.repo.SetRevocations([]byte(list)); err != nil {
					t.Fatal(err)
				}
				f.publish("stable", version, "rpi4")
			}
			publish("one", "1")
			if list, v, n := look(); list != "one" || v != "1" || n > 0 {
				t.Fatal(name, list, v, n)
			}
			path := filepath.Join(d.dir, name)
			if err := errors.Join(os.Rename(path, path+".away"), os.Symlink("nowhere/at/all", path)); err != nil {
				t.Fatal(err)
			}
			if name == "floor" { // a directory in its place cannot be renamed over
				if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				publish("two", "2")
				publish("three", "3")
				for range 2 {
					if list, v, n := look(); list != "three" || v != "3" || n == 0 {
						t.Errorf("%s: list %q, version %s; %d times not kept", name, list, v, n)
					}
				}
				if list, v := known(); list != "three" || v != "3" {
					t.Errorf("%s: knows list %q, version %s", name, list, v)
				}
				peer := newDevice(t, f.root)
				peer.want(d.peer, f.now, "3")
				if b, err := peer.Revocations(ctx, d.peer, nil); err != nil || string(b) != "three" {
					t.Errorf("%s: a neighbour gets list %q, %v", name, b, err)
				}
			}
			if err := errors.Join(os.Remove(path), os.Rename(path+".away", path)); err != nil {
				t.Fatal(err)
			}
			if !restart {
				if _, _, n := look(); n > 0 {
					t.Errorf("%s: still not kept", name)
				}
				d.reopen()
				if list, v := known(); list != "three" || v != "3" {
					t.Errorf("%s: kept list %q, version %s", name, list, v)
				}
				continue
			}
			d.reopen()
			if list, v := known(); list != "one" || v != "1" {
				t.Errorf("%s: after a restart list %q, version %s", name, list, v)
			}
			if list, v, n := look(); list != "three" || v != "3" || n > 0 {
				t.Errorf("%s: after a restart a look brings list %q, version %s; %d times not kept", name, list, v, n)
			}
		}
	}
}

// TestUnwritableCost: where the store cannot be written, nothing is fetched at each look that
// was fetched before; what others vouch for by then is.
func TestUnwritableCost(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	d := newDevice(t, f.root)
	d.want(f.fetch, f.now, "1")
	meta := filepath.Join(d.dir, "metadata")
	if err := errors.Join(os.Rename(meta, meta+".away"), os.Symlink("nowhere/at/all", meta)); err != nil {
		t.Fatal(err)
	}
	look := func(version string) (requests []string) {
		t.Helper()
		f.measure()
		if err := d.Refresh(ctx, f.fetch, f.now); !errors.Is(err, release.ErrNotKept) {
			t.Fatal(err)
		}
		m, _, err := d.Release(ctx, "stable", "rpi4", f.fetch)
		if err != nil && !errors.Is(err, release.ErrNotKept) || m.Version != version {
			t.Fatal(m, err)
		}
		requests, _ = f.measure()
		return requests
	}
	for i, change := range []func() error{
		func() error { return nil },
		func() error { return f.repo.Rotate("stable") },
		func() error { return f.repo.Rotate("targets") },
		func() error { return f.repo.Rotate("snapshot") },
		func() error { return f.repo.Rotate("timestamp") },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		f.publish("stable", version(i), "rpi4")
		look(version(i))
		for range 2 {
			if req := look(version(i)); !slices.Equal(req, []string{"metadata/timestamp.json"}) {
				t.Errorf("change %d: nothing new costs %v", i, req)
			}
		}
		f.now = f.now.Add(time.Hour)
		if _, err := f.repo.Refresh(); err != nil {
			t.Fatal(err)
		}
		if req := look(version(i)); !slices.Equal(req, []string{"metadata/timestamp.json"}) {
			t.Errorf("change %d: signed again costs %v", i, req)
		}
	}
}
