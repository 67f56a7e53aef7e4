package node_test

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"updraft/delta/patch"
	"updraft/delta/release"
	"updraft/node"
	"updraft/node/report"
)

// drifted is a table of numbers that follow each other, which moved by little all
// over: something for a dense patch.
func drifted(n int, by uint32) []byte {
	b := make([]byte, 0, n)
	x := uint32(1)
	for i := range n / 16 {
		x = x*1664525 + 1013904223
		b = binary.LittleEndian.AppendUint32(b, uint32(i)*0x30+by*uint32(i/997))
		b = binary.LittleEndian.AppendUint32(b, x>>20)
		y := x
		if i%16 == int(by) {
			y = x*x>>3 ^ by<<9
		}
		b = binary.LittleEndian.AppendUint32(b, y)
		b = binary.LittleEndian.AppendUint32(b, 0xe0000000|x>>13&0xff+by)
	}
	return b
}

// slowSite is four devices with version 1.0.0, and the manifest of a release that
// has a dense patch from it.
func slowSite(t *testing.T) (*site, []*agent, *release.Manifest, []byte) {
	t.Helper()
	if testing.Short() {
		t.Skip("dense patches take seconds")
	}
	s := newSite(t, 10<<20)
	s.publish("1.0.0", s.write("v1/app.bin", drifted(4<<20, 0)))
	var as []*agent
	for range 4 {
		as = append(as, s.start(s.enroll(nil)))
	}
	for _, a := range as {
		a.awaitPeers(3)
	}
	for _, a := range as {
		go func() { _, _ = a.node.Check(context.Background()) }()
	}
	for _, a := range as {
		a.awaitVersion("1.0.0")
	}
	v2 := drifted(4<<20, 1)
	m := s.publishAs(patch.Dense, "1.1.0", s.write("v2/app.bin", v2))
	if ps := m.Artifacts[0].Patches; len(ps) != 1 || ps[0].Work < 4*m.Artifacts[0].Size {
		t.Fatalf("no slow patch: %+v", ps)
	}
	return s, as, m, v2
}

// TestFewRebuild: of four devices that could apply a slow patch one does; the
// others take the result over the LAN and say so.
func TestFewRebuild(t *testing.T) {
	t.Parallel()
	s, as, m, v2 := slowSite(t)
	before := s.link.Out.Load()
	reused := make([]int64, len(as))
	for i, a := range as {
		reused[i] = a.node.Status().Bytes.Reused
		go func() { _, _ = a.node.Check(context.Background()) }()
	}
	said := 0
	for _, a := range as {
		a.await("on its way", func(st report.Status) bool {
			if strings.Contains(strings.Join(st.Why, "\n"), "rebuilds it for the site") {
				said++
				return true
			}
			return st.State == "rebuilding" || st.Current == "1.1.0"
		})
	}
	rebuilt := 0
	for i, a := range as {
		st := a.awaitVersion("1.1.0")
		a.sees(v2)
		if w := st.Bytes.Written; w != 2*m.Artifacts[0].Size {
			t.Errorf("%s wrote %d bytes for two releases of %d", st.Name, w, m.Artifacts[0].Size)
		}
		if st.Bytes.Reused-reused[i] > m.Artifacts[0].Size/2 {
			rebuilt++
		}
	}
	if rebuilt < 1 || rebuilt > 2 || said == 0 {
		t.Errorf("%d devices rebuilt; %d said that they wait for it", rebuilt, said)
	}
	p := m.Artifacts[0].Patches[0].Size
	if out := s.link.Out.Load() - before; out > p+p/20+8<<10 {
		t.Errorf("uplink carried %d bytes for a patch of %d", out, p)
	}
}

// TestRebuilderLost: the device that rebuilds for the others goes; another begins,
// and the uplink carries no chunks.
func TestRebuilderLost(t *testing.T) {
	t.Parallel()
	s, as, m, v2 := slowSite(t)
	before := s.link.Out.Load()
	came := func(st report.Status) int64 { return st.Bytes.LANIn + st.Bytes.Uplink }
	var had []int64
	for _, a := range as {
		had = append(had, came(a.node.Status()))
	}
	for _, a := range as {
		go func() { _, _ = a.node.Check(context.Background()) }()
	}
	lost := -1
	as[0].await("rebuilt by somebody", func(report.Status) bool {
		for i, a := range as {
			if st := a.node.Status(); st.State == "rebuilding" {
				lost = i
				return true
			}
		}
		return false
	})
	p := m.Artifacts[0].Patches[0].Size
	for i, a := range as {
		if i != lost { // on a busy machine it comes later than the rebuilding begins
			a.await("holds the patch", func(st report.Status) bool { return came(st)-had[i] >= p })
		}
	}
	as[lost].end()
	for i, a := range as {
		if i != lost {
			a.awaitVersion("1.1.0")
			a.sees(v2)
		}
	}
	// The others had the patch as well.
	if out := s.link.Out.Load() - before; out > p+p/20+64<<10 {
		t.Errorf("uplink carried %d bytes for a patch of %d", out, p)
	}
}

// TestRebuilderReboots: the only device with the base reboots into the release, by its commit hook, and stays away. The
// others have by then what they need of it, for which it has waited.
func TestRebuilderReboots(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 1<<20)
	v2 := edited(v1)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	marker, hook := filepath.Join(s.dir, "reboot"), filepath.Join(s.dir, "hook")
	text := "#!/bin/sh\n[ \"$UPDRAFT_VERSION\" = 1.0.0 ] || { touch " + marker + "; exec sleep 600; }\n"
	if err := os.WriteFile(hook, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	base := s.start(s.enroll(func(c *node.Config) { c.LANRate, c.Hooks.Commit = 1<<20, hook }))
	base.look("1.0.0")
	base.awaitVersion("1.0.0")
	m := s.publish("1.1.0", s.write("v2/app.bin", v2))
	others := []*agent{s.start(s.enroll(nil)), s.start(s.enroll(nil))}
	all := append(others, base)
	for _, a := range all {
		a.awaitPeers(2)
	}
	before := s.link.Out.Load()
	for _, a := range all {
		go func() { _ = check(a) }()
	}
	said := false
	base.await("about to reboot", func(st report.Status) bool {
		said = said || strings.Contains(strings.Join(st.Why, "\n"), "only this device has")
		_, err := os.Stat(marker)
		return err == nil
	})
	base.end()
	for _, a := range others {
		a.awaitVersion("1.1.0")
		a.sees(v2)
	}
	p := m.Artifacts[0].Patches[0].Size
	if out := s.link.Out.Load() - before; !said || out > 2*p+100<<10 {
		t.Errorf("the uplink carried %d bytes for a patch of %d; the wait was told: %v", out, p, said)
	}
}
