package fleet_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"updraft/delta/release"
	"updraft/node/fleet"
	"updraft/node/identity"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("UPDRAFT_TEST_PUBLISH"); dir != "" {
		os.Exit(publishForever(dir))
	}
	os.Exit(m.Run())
}

func open(t testing.TB) *fleet.Fleet {
	t.Helper()
	f, err := fleet.Init(filepath.Join(t.TempDir(), "shops"), fleet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// put writes an object below dir and returns its digest.
func put(dir, kind, content string) ([32]byte, int64, error) {
	sum := sha256.Sum256([]byte(content))
	name := filepath.Join(dir, kind, hex.EncodeToString(sum[:]))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return sum, 0, err
	}
	return sum, int64(len(content)), os.WriteFile(name, []byte(content), 0o600)
}

// build makes a small release with one object of each kind.
func build(_ context.Context, j fleet.Job) (*release.Manifest, error) {
	var err error
	object := func(kind, content string) (sum [32]byte, n int64) {
		s, n, e := put(j.Staging, kind, content)
		err = errors.Join(err, e)
		return s, n
	}
	a := release.Artifact{Name: "app", Kind: release.File, Mode: 0o755, Size: 1000, Sum: sha256.Sum256([]byte(j.Channel + j.Version)), LastPage: 1}
	a.Index, _ = object("index", fmt.Sprintf("%-35s", "index "+j.Version))
	a.Pages = [][32]byte{a.Index}
	a.Map, a.MapSize = object("maps", "map "+j.Version)
	for _, m := range j.Previous {
		p := release.Patch{Base: m.Artifacts[0].Sum, BaseVersion: m.Version, BlockSize: 1 << 18}
		p.Sum, p.Size = object("patches", "patch "+m.Version+" "+j.Version)
		a.Patches = append(a.Patches, p)
		if len(a.Patches) == 3 {
			break
		}
	}
	m := &release.Manifest{Format: 1, Channel: j.Channel, Version: j.Version, Sequence: j.Sequence, Types: j.Types, Created: j.Created}
	var pack release.Pack
	pack.Sum, pack.Size = object("packs", "pack "+j.Version)
	m.Packs = []release.Pack{pack}
	m.Artifacts = []release.Artifact{a}
	return m, err
}

func publish(t testing.TB, f *fleet.Fleet, version string, types ...string) *release.Manifest {
	t.Helper()
	m, err := f.Publish(context.Background(), fleet.PublishOptions{Channel: "stable", Version: version, Types: types}, build)
	if err != nil {
		t.Fatal(version, err)
	}
	return m
}

// files lists what is below a directory, with the content.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	list := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		list[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// newest is what a device finds at the origin.
func newest(t testing.TB, f *fleet.Fleet, typ string) (*release.Manifest, error) {
	t.Helper()
	repo, err := f.Repo()
	if err != nil {
		t.Fatal(err)
	}
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	trust, err := release.OpenTrust(t.TempDir(), root)
	if err != nil {
		t.Fatal(err)
	}
	fetch := func(_ context.Context, name string, _ int64) ([]byte, error) {
		return os.ReadFile(filepath.Join(f.Origin(), name))
	}
	if err := trust.Refresh(context.Background(), fetch, time.Now()); err != nil {
		return nil, err
	}
	m, _, err := trust.Release(context.Background(), "stable", typ, fetch)
	return m, err
}

func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "shops")
	f, err := fleet.Init(dir, fleet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if f.Name() != "shops" {
		t.Error(f.Name())
	}
	if info, err := os.Stat(filepath.Join(dir, "keys")); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info.Mode(), err)
	}
	for _, name := range []string{"root.key", "targets.key", "snapshot.key", "timestamp.key", "ca.key", "site.secret"} {
		if info, err := os.Stat(filepath.Join(dir, "keys", name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Error(name, err)
		}
	}
	for _, name := range f.Offline() {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
	if _, err := fleet.Init(dir, fleet.Options{}); !errors.Is(err, fleet.ErrNotEmpty) {
		t.Error(err)
	}
	if _, err := fleet.Open(dir, fleet.Options{}); err != nil {
		t.Error(err)
	}
	if _, err := fleet.Open(t.TempDir(), fleet.Options{}); !errors.Is(err, fleet.ErrNotFleet) {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "fleet.json"), []byte(`{"updraft_fleet":9}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := fleet.Open(dir, fleet.Options{}); !errors.Is(err, fleet.ErrNotFleet) {
		t.Error(err)
	}
}

func TestPublish(t *testing.T) {
	f := open(t)
	m := publish(t, f, "1.0")
	if m.Sequence != 1 {
		t.Error(m.Sequence)
	}
	publish(t, f, "1.1", "rpi4")
	m = publish(t, f, "1.2", "rpi4", "x86_64")
	if m.Sequence != 3 || len(m.Artifacts[0].Patches) != 2 {
		t.Errorf("%+v", m)
	}
	if m = publish(t, f, "1.2", "riscv"); len(m.Artifacts[0].Patches) != 1 {
		t.Error("patches from releases for other types")
	}
	for typ, want := range map[string]string{"rpi4": "1.2", "riscv": "1.2", "other": "1.0"} {
		if got, err := newest(t, f, typ); err != nil || got.Version != want {
			t.Errorf("%s: %v, %v", typ, got, err)
		}
	}
	history, err := f.History("stable")
	if err != nil || len(history) != 4 || history[0].Sequence != 4 || history[3].Version != "1.0" {
		t.Error(history, err)
	}
	if c, err := f.Channels(); err != nil || len(c) != 1 {
		t.Error(c, err)
	}
	origin := files(t, f.Origin())
	for kind, n := range map[string]int{"packs": 3, "index": 3, "maps": 3, "patches": 3} { // equal objects are stored once
		count := 0
		for name := range origin {
			if strings.HasPrefix(name, kind+"/") {
				count++
			}
		}
		if count != n {
			t.Errorf("%d %s, want %d", count, kind, n)
		}
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(f.Origin()), "staging")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("staging left:", err)
	}
}

func TestPublishRefuses(t *testing.T) {
	f := open(t)
	publish(t, f, "1.0", "rpi4")
	before := files(t, f.Origin())
	ctx := context.Background()
	broken := errors.New("broken")
	change := func(fn func(m *release.Manifest)) fleet.Build {
		return func(ctx context.Context, j fleet.Job) (*release.Manifest, error) {
			m, err := build(ctx, j)
			fn(m)
			return m, err
		}
	}
	for name, c := range map[string]struct {
		o     fleet.PublishOptions
		build fleet.Build
		want  error
	}{
		"exists":      {fleet.PublishOptions{Channel: "stable", Version: "1.0", Types: []string{"rpi4"}}, build, fleet.ErrExists},
		"exists, any": {fleet.PublishOptions{Channel: "stable", Version: "1.0"}, build, fleet.ErrExists},
		"version":     {fleet.PublishOptions{Channel: "stable", Version: "../1"}, build, fleet.ErrOptions},
		"channel":     {fleet.PublishOptions{Channel: "a/../b", Version: "1"}, build, fleet.ErrOptions},
		"type":        {fleet.PublishOptions{Channel: "stable", Version: "2", Types: []string{"a b"}}, build, fleet.ErrOptions},
		"build": {fleet.PublishOptions{Channel: "stable", Version: "2"}, func(ctx context.Context, j fleet.Job) (*release.Manifest, error) {
			_, _ = build(ctx, j)
			return nil, broken
		}, broken},
		"other version": {fleet.PublishOptions{Channel: "stable", Version: "2"}, change(func(m *release.Manifest) { m.Version = "3" }), fleet.ErrStaged},
		"other types":   {fleet.PublishOptions{Channel: "stable", Version: "2"}, change(func(m *release.Manifest) { m.Types = []string{"x"} }), fleet.ErrStaged},
		"missing pack":  {fleet.PublishOptions{Channel: "stable", Version: "2"}, change(func(m *release.Manifest) { m.Packs[0].Sum[0]++ }), fleet.ErrStaged},
		"short pack":    {fleet.PublishOptions{Channel: "stable", Version: "2"}, change(func(m *release.Manifest) { m.Packs[0].Size++ }), fleet.ErrStaged},
		"bad manifest":  {fleet.PublishOptions{Channel: "stable", Version: "2"}, change(func(m *release.Manifest) { m.Artifacts[0].Name = "a/b" }), release.ErrManifest},
		"busy elsewhere": {fleet.PublishOptions{Channel: "stable", Version: "2"}, func(ctx context.Context, j fleet.Job) (*release.Manifest, error) {
			other, err := fleet.Open(filepath.Dir(f.Origin()), fleet.Options{})
			if err != nil {
				return nil, err
			}
			return other.Publish(ctx, fleet.PublishOptions{Channel: "stable", Version: "2"}, build)
		}, fleet.ErrBusy},
	} {
		if _, err := f.Publish(ctx, c.o, c.build); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if after := files(t, f.Origin()); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("%s: the origin changed", name)
		}
	}
	publish(t, f, "2")
}

// TestCancel ends a publish between the move and the signature.
func TestCancel(t *testing.T) {
	f := open(t)
	publish(t, f, "1.0")
	before := files(t, f.Origin())
	ctx, cancel := context.WithCancel(context.Background())
	_, err := f.Publish(ctx, fleet.PublishOptions{Channel: "stable", Version: "2"}, func(ctx context.Context, j fleet.Job) (*release.Manifest, error) {
		cancel()
		return build(ctx, j)
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if after := files(t, f.Origin()); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Error("the origin changed")
	}
}

// TestWorkStays: what was built of a release that did not come about is there for the next
// build, and nobody else's; also when a part of it was moved into the origin. It is gone
// when a release comes about.
func TestWorkStays(t *testing.T) {
	f := open(t)
	publish(t, f, "1.0")
	before := files(t, f.Origin())
	staging := filepath.Join(filepath.Dir(f.Origin()), "staging")
	objects := filepath.Join(staging, "publish", "objects")
	ctx, cancel := context.WithCancel(context.Background())
	var built map[string]string
	_, err := f.Publish(ctx, fleet.PublishOptions{Channel: "stable", Version: "2"}, func(ctx context.Context, j fleet.Job) (*release.Manifest, error) {
		m, err := build(ctx, j)
		built = files(t, j.Staging)
		cancel()
		return m, err
	})
	if !errors.Is(err, context.Canceled) || len(built) != 4 {
		t.Fatal(err, built)
	}
	check := func(when string) {
		t.Helper()
		if after := files(t, f.Origin()); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("%s: the origin changed", when)
		}
		if left := files(t, staging); len(left) != len(built) || fmt.Sprint(files(t, objects)) != fmt.Sprint(built) {
			t.Errorf("%s: in staging is %v", when, left)
		}
		if info, err := os.Stat(staging); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", when, info.Mode(), err)
		}
	}
	check("cancelled")
	// As if the power had failed after two of them were moved.
	var list []string
	for name := range built {
		if list = append(list, name); len(list) <= 2 {
			if err := os.Rename(filepath.Join(objects, name), filepath.Join(f.Origin(), name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(staging, "publish", "moved"), []byte(strings.Join(list, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	_, err = f.Publish(context.Background(), fleet.PublishOptions{Channel: "other", Version: "7"}, func(_ context.Context, j fleet.Job) (*release.Manifest, error) {
		if got := files(t, j.Staging); fmt.Sprint(got) != fmt.Sprint(built) {
			t.Errorf("the build finds %v", got)
		}
		return nil, errors.Join(broken, os.WriteFile(filepath.Join(j.Scratch, "base"), nil, 0o600))
	})
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	check("failed")
	gone := func(when string) {
		t.Helper()
		if _, err := os.Stat(staging); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: staging left: %v", when, err)
		}
	}
	for when, b := range map[string]fleet.Build{
		"the disk is full": func(context.Context, fleet.Job) (*release.Manifest, error) {
			return nil, &fs.PathError{Op: "write", Path: "pack", Err: unix.ENOSPC}
		},
		"objects are missing": func(ctx context.Context, j fleet.Job) (*release.Manifest, error) {
			m, err := build(ctx, j)
			return m, errors.Join(err, os.RemoveAll(j.Staging))
		},
	} {
		if err := os.MkdirAll(objects, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Publish(context.Background(), fleet.PublishOptions{Channel: "stable", Version: "2"}, b); err == nil {
			t.Fatal(when)
		}
		gone(when)
	}
	publish(t, f, "3")
	gone("published")
}

// publishForever is the child of TestKill.
func publishForever(dir string) int {
	for i := 0; ; i++ {
		f, err := fleet.Open(dir, fleet.Options{})
		if err == nil {
			var n []*release.Manifest
			if n, err = f.History("stable"); err == nil {
				_, err = f.Publish(context.Background(), fleet.PublishOptions{Channel: "stable", Version: fmt.Sprintf("1.%d.%d", len(n), time.Now().UnixNano())}, build)
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(i)
	}
}

// TestKill kills a publisher at moments spread over a publish. After each, a device
// finds a whole release, and what is at the origin is what releases name.
func TestKill(t *testing.T) {
	f := open(t)
	publish(t, f, "1.0")
	dir := filepath.Dir(f.Origin())
	var last uint64 = 1
	for i := range 24 {
		cmd := exec.Command(os.Args[0], "-test.run", "none")
		cmd.Env = append(os.Environ(), "UPDRAFT_TEST_PUBLISH="+dir)
		var out, failed bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &failed
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(10+i*7) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if failed.Len() > 0 {
			t.Fatal(failed.String())
		}
		m, err := newest(t, f, "rpi4")
		if err != nil || m.Sequence < last {
			t.Fatalf("round %d: %v, %v, had %d", i, m, err, last)
		}
		last = m.Sequence
		for kind, sum := range map[string][32]byte{"packs": m.Packs[0].Sum, "index": m.Artifacts[0].Index, "maps": m.Artifacts[0].Map} {
			b, err := os.ReadFile(filepath.Join(f.Origin(), kind, hex.EncodeToString(sum[:])))
			if err != nil || sha256.Sum256(b) != sum {
				t.Fatalf("round %d: %s: %v", i, kind, err)
			}
		}
	}
	publish(t, f, "end")
	history, err := f.History("stable")
	if err != nil {
		t.Fatal(err)
	}
	packs, err := os.ReadDir(filepath.Join(f.Origin(), "packs"))
	if err != nil || len(packs) != len(history) {
		t.Errorf("%d packs for %d releases: %v", len(packs), len(history), err)
	}
	for i, m := range history {
		if m.Sequence != uint64(len(history)-i) {
			t.Errorf("sequence %d at %d of %d", m.Sequence, i, len(history))
		}
	}
	t.Logf("%d releases", len(history))
	nothingUnfinished(t, dir)
}

// nothingUnfinished fails if a file is there that was written aside, below dir.
func nothingUnfinished(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), ".") && strings.Contains(d.Name(), "manifest") {
			t.Errorf("left: %s", name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestUnfinishedFilesGo: what a publisher was writing when it was killed is removed by the
// next publish; what somebody else put there is not.
func TestUnfinishedFilesGo(t *testing.T) {
	f := open(t)
	publish(t, f, "1.0")
	dir := filepath.Dir(f.Origin())
	gone := []string{"releases/stable/.00000002-1.1.manifest5577006791947779410", "origin/metadata/.timestamp.json8674665223082153551", "origin/targets/stable/.0123abcd.any6129484611666145821"}
	stay := []string{"releases/stable/.gitignore", "releases/stable/00000009-9.9.note1234567890", "origin/targets/.htaccess", "origin/targets/stable/.note2026"}
	for _, name := range append(gone, stay...) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half of"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, f, "1.1")
	for _, name := range gone {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
	for _, name := range stay {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	nothingUnfinished(t, dir)
}

func TestEnroll(t *testing.T) {
	f := open(t)
	e, err := f.Enroll(fleet.EnrollOptions{Name: "till-7", Type: "rpi4", Site: "store-12", Roles: []string{identity.RoleGateway},
		Origins: []string{"https://updates.example/", "/mnt/stick"}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "till-7.updraft")
	if err := e.Write(path); err != nil {
		t.Fatal(err)
	}
	info, _ := os.Stat(path)
	t.Logf("enrollment: %d bytes, certificate %d", info.Size(), len(e.Cert))
	if e, err = identity.ReadEnrollment(path); err != nil {
		t.Fatal(err)
	}
	c, err := e.Certificate(time.Now())
	if err != nil || !c.Has(identity.RoleGateway) || c.Site != "store-12" || e.Channel != "stable" {
		t.Fatalf("%+v, %v", c, err)
	}
	if left := time.Until(time.Unix(c.NotAfter, 0)); left < fleet.DefaultTTL-time.Hour {
		t.Error(left)
	}
	if _, err := release.OpenTrust(t.TempDir(), e.Root); err != nil {
		t.Error(err)
	}
	if _, err := f.Enroll(fleet.EnrollOptions{Name: "till-7"}); !errors.Is(err, fleet.ErrExists) {
		t.Error(err)
	}
	again, err := f.Enroll(fleet.EnrollOptions{Name: "till-7", Site: "store-12", Replace: true, TTL: time.Hour})
	if err != nil || again.SiteKey != e.SiteKey || again.Type != release.AnyType {
		t.Error(again, err)
	}
	other, err := f.Enroll(fleet.EnrollOptions{Name: "till-8", Site: "store-13"})
	if err != nil || other.SiteKey == e.SiteKey {
		t.Error("two sites share a key", err)
	}
	devices, err := f.Devices()
	if err != nil || len(devices) != 2 || devices[0].Name != "till-7" || devices[0].Peer == devices[1].Peer {
		t.Error(devices, err)
	}
}

func TestEnrollRequest(t *testing.T) {
	f := open(t)
	key, req, err := identity.NewRequest("till-9", "rpi4", nil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := f.Enroll(fleet.EnrollOptions{Request: req, Site: "s"})
	if err != nil || e.Name != "till-9" || e.Type != "rpi4" || len(e.Key) != 0 {
		t.Fatal(e, err)
	}
	if err := e.Complete(key); err != nil {
		t.Error(err)
	}
	for name, o := range map[string]fleet.EnrollOptions{
		"no name": {}, "path": {Name: "../x"}, "type": {Name: "a", Type: "b/c"}, "site": {Name: "a", Site: "b c"},
		"channel": {Name: "a", Channel: "../x"}, "ttl": {Name: "a", TTL: -1}, "origin": {Name: "a", Origins: []string{"updates.example"}},
		"origin scheme": {Name: "a", Origins: []string{"gopher://x/"}}, "peer": {Name: "a", Peers: []string{"192.0.2.1:4001"}},
		"peer without ID": {Name: "a", Bootstrap: []string{"/ip4/192.0.2.1/tcp/4001"}},
	} {
		if _, err := f.Enroll(o); !errors.Is(err, fleet.ErrOptions) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.Enroll(fleet.EnrollOptions{Request: req[:20]}); !errors.Is(err, identity.ErrMalformed) {
		t.Error(err)
	}
}

// TestEnrollRequestOtherName: a key is not given a second name, where who revokes the first would
// not know of it, also not after the device got another key.
func TestEnrollRequestOtherName(t *testing.T) {
	t.Parallel()
	f := open(t)
	key, req, err := identity.NewRequest("till-7", "any", nil)
	if err != nil {
		t.Fatal(err)
	}
	enroll := func(o fleet.EnrollOptions) error {
		_, err := f.Enroll(o)
		return err
	}
	if err := enroll(fleet.EnrollOptions{Request: req}); err != nil {
		t.Fatal(err)
	}
	again, err := identity.SignRequest(key, "till-8", "any", nil)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(want error) {
		t.Helper()
		for _, o := range []fleet.EnrollOptions{{Request: again}, {Request: again, Replace: true}, {Request: req, Name: "till-8"}} {
			if err := enroll(o); !errors.Is(err, fleet.ErrOtherName) || !errors.Is(err, want) || !strings.Contains(err.Error(), "till-7") {
				t.Errorf("%s: %v", o.Name, err)
			}
		}
	}
	refused(fleet.ErrExists)
	if err := enroll(fleet.EnrollOptions{Request: req, Replace: true}); err != nil {
		t.Errorf("under its own name: %v", err)
	}
	if err := enroll(fleet.EnrollOptions{Request: again, Name: "till-7", Replace: true}); err != nil {
		t.Errorf("under its own name, which another replaces: %v", err)
	}
	if err := enroll(fleet.EnrollOptions{Name: "till-7", Replace: true}); err != nil {
		t.Fatal(err)
	}
	refused(fleet.ErrExists)
	if _, err := f.Revoke("stolen", "till-7"); err != nil {
		t.Fatal(err)
	}
	refused(identity.ErrRevoked)
	if _, err := f.Renew(); err != nil {
		t.Fatal(err)
	}
	if l, err := f.Devices(); err != nil || len(l) != 1 || len(l[0].Former) != 1 {
		t.Error(l, err)
	}
	if err := enroll(fleet.EnrollOptions{Request: req, Replace: true}); err != nil {
		t.Errorf("a key that the name had: %v", err)
	}
	if l, err := f.Devices(); err != nil || len(l) != 1 || len(l[0].Former) != 1 || l[0].Former[0] == l[0].Peer {
		t.Error(l, err)
	}
}

// TestOffline works without the keys that are kept elsewhere.
func TestOffline(t *testing.T) {
	f := open(t)
	publish(t, f, "1.0")
	for _, name := range f.Offline() {
		if err := os.Rename(name, filepath.Join(t.TempDir(), filepath.Base(name))); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, f, "1.1")
	if roles, err := f.Refresh(); err != nil || len(roles) == 0 {
		t.Error(roles, err)
	}
	_, err := f.Publish(context.Background(), fleet.PublishOptions{Channel: "beta", Version: "1"}, build)
	if !errors.Is(err, release.ErrNoKey) || !strings.Contains(err.Error(), "targets.key") {
		t.Error(err)
	}
	if err := f.Rotate("timestamp"); !errors.Is(err, release.ErrNoKey) {
		t.Error(err)
	}
	if m, err := newest(t, f, "x"); err != nil || m.Version != "1.1" {
		t.Error(m, err)
	}
}

// TestSealedSecrets: who has the directory and not the passphrase can neither sign
// certificates nor tell a site's key.
func TestSealedSecrets(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "shops")
	keys := func(pass string) *release.Keys {
		return &release.Keys{Work: 4, Passphrase: func(string, bool) (string, error) { return pass, nil }}
	}
	f, err := fleet.Init(dir, fleet.Options{SealAll: true, Keys: keys("one")})
	if err != nil {
		t.Fatal(err)
	}
	e, err := f.Enroll(fleet.EnrollOptions{Name: "a", Site: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []*release.Keys{nil, keys("two")} {
		if f, err = fleet.Open(dir, fleet.Options{Keys: k}); err != nil {
			t.Fatal(err)
		}
		_, site := f.SiteKey("x")
		_, public := f.Authority()
		_, enroll := f.Enroll(fleet.EnrollOptions{Name: "b"})
		_, renew := f.Renew("a")
		_, revoke := f.Revoke("", "a")
		for what, err := range map[string]error{"site key": site, "authority": public, "enroll": enroll, "renew": renew, "revoke": revoke} {
			if !errors.Is(err, release.ErrSealed) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if f, err = fleet.Open(dir, fleet.Options{Keys: keys("one")}); err != nil {
		t.Fatal(err)
	}
	if key, err := f.SiteKey("x"); err != nil || key != e.SiteKey {
		t.Error(err)
	}
	publish(t, f, "1.0")
	if _, err := f.Renew("a"); err != nil {
		t.Error(err)
	}
	if _, err := f.Revoke("", "a"); err != nil {
		t.Error(err)
	}
	// A build is not begun without the keys to sign it.
	if f, err = fleet.Open(dir, fleet.Options{}); err != nil {
		t.Fatal(err)
	}
	_, err = f.Publish(context.Background(), fleet.PublishOptions{Channel: "stable", Version: "2"}, func(context.Context, fleet.Job) (*release.Manifest, error) {
		t.Error("built")
		return nil, io.EOF
	})
	if !errors.Is(err, release.ErrSealed) {
		t.Error(err)
	}
}
