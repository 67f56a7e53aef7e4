package node_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"updraft/node"
	"updraft/node/report"
)

// smallScratch has the device make temporary files on a file system of their own, of the
// given size, and returns what makes room there.
func smallScratch(t *testing.T, c *node.Config, size string) (grow func()) {
	t.Helper()
	dir := filepath.Join(c.Data, "state", "scratch")
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a small file system can be mounted by root only: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return func() {
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=200m"); err != nil {
			t.Error(err)
		}
	}
}

// awaitSetback waits until status names a full disk, makes room, and waits for version.
// Neither patch nor base is blamed, and when all is done nothing is.
func (a *agent) awaitSetback(version string, grow func()) report.Status {
	a.t.Helper()
	p := a.problem("disk")
	if !strings.Contains(p.Text, "no space left") || !strings.Contains(p.Hint, "free space") {
		a.t.Errorf("problem %+v", p)
	}
	grow()
	st := a.await("on "+version, func(st report.Status) bool {
		for _, p := range st.Problems {
			if p.Code != "disk" {
				a.t.Fatalf("problem %+v", p)
			}
		}
		return st.Current == version
	})
	if len(st.Problems) > 0 {
		a.t.Errorf("still %+v", st.Problems)
	}
	return st
}

// TestNoRoomForAChain: where the disk is full in the middle of a chain, no patch is to
// blame, and the chain is gone when there is room.
func TestNoRoomForAChain(t *testing.T) {
	skipPublishing(t)
	t.Parallel()
	var grow func()
	s, a, m, v := behindSite(t, 1<<20, 6000, nil, func(c *node.Config) { grow = smallScratch(t, c, "1m") })
	before := s.link.Out.Load()
	a.look("1.5.0")
	a.awaitSetback("1.5.0", grow)
	a.sees(v)
	a.noScratch()
	if out := s.link.Out.Load() - before; out > chain(t, m).Size()*3/2+1<<20 {
		t.Errorf("uplink carried %d bytes for a chain of %d", out, chain(t, m).Size())
	}
}

// TestNoRoomForADecoder: the same for the decoder's own temporary file.
func TestNoRoomForADecoder(t *testing.T) {
	skipPublishing(t)
	t.Parallel()
	frame := func(b []byte) []byte {
		z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		return z.EncodeAll(b, nil)
	}
	var words []byte
	for _, b := range noise(1, 1<<18) {
		words = append(words, "the quick brown fox jumps over it "[b%16:16+b%16]...)
	}
	s := newSite(t, 1<<20)
	s.publish("1.0.0", s.write("v1/app.bin", frame(words)))
	a := s.start(s.enroll(nil))
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	a.end()
	s.peers = nil
	grow := smallScratch(t, &a.cfg, "1m")
	a = s.start(a.cfg)
	v2 := frame(edited(words))
	m := s.publish("1.1.0", s.write("v2/app.bin", v2))
	if p := m.Artifacts[0].Patches; len(p) != 1 || p[0].Size > int64(len(v2)/2) {
		t.Fatalf("patches %+v for %d bytes", p, len(v2))
	}
	before := s.link.Out.Load()
	a.look("1.1.0")
	a.awaitSetback("1.1.0", grow)
	a.sees(v2)
	if out := s.link.Out.Load() - before; out > int64(len(v2))*3/4 {
		t.Errorf("uplink carried %d bytes for a patch of %d", out, m.Artifacts[0].Patches[0].Size)
	}
}
