package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/delta/chunk"
	"updraft/delta/release"
	"updraft/swarm"
)

// loneRegistry is the registry of a device without neighbours.
func loneRegistry(t *testing.T) *registry {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h, err := swarm.NewHost(swarm.HostConfig{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	sw, err := swarm.New(swarm.Config{Host: h, Admit: func(peer.ID, []byte) (swarm.Identity, error) { return swarm.Identity{}, errors.New("nobody") }})
	if err != nil {
		t.Fatal(err)
	}
	return newRegistry(sw)
}

// artifactOf describes b, whose first listing bytes are cut on their own, and
// returns its index.
func artifactOf(t *testing.T, b []byte, listing int) (*release.Artifact, []byte) {
	t.Helper()
	var list []chunk.Chunk
	c := chunk.NewCutter(chunk.Default(), func(c chunk.Chunk, _ []byte) error { list = append(list, c); return nil })
	_, err1 := c.Write(b[:listing])
	err2 := c.Boundary()
	_, err3 := c.Write(b[listing:])
	if err := errors.Join(err1, err2, err3, c.Close()); err != nil {
		t.Fatal(err)
	}
	index := chunk.AppendIndex(nil, list)
	art := &release.Artifact{Name: "app", Kind: release.File, Mode: 0o644, Size: int64(len(b)), Sum: sha256.Sum256(b), Index: sha256.Sum256(index)}
	art.Pages, art.LastPage = chunk.PageSums(index)
	if listing > 0 {
		art.Kind, art.ListingSize = release.Tree, int64(listing)
	}
	return art, index
}

// wrote returns how many bytes of a file's assembly are written, when all that came is.
func wrote(t *testing.T, a *assembly) int64 {
	t.Helper()
	if err := a.st.(*fileStream).sync(); err != nil {
		t.Fatal(err)
	}
	return a.written.Load()
}

// assemblyOf begins the assembly of a file in dir.
func assemblyOf(t *testing.T, reg *registry, dir string, art *release.Artifact) *assembly {
	t.Helper()
	a := unstarted(t, reg, dir, art)
	if err := a.start(true); err != nil {
		t.Fatal(err)
	}
	return a
}

func unstarted(t *testing.T, reg *registry, dir string, art *release.Artifact) *assembly {
	t.Helper()
	path := filepath.Join(dir, "stream")
	_, err := os.Lstat(path)
	st, err2 := createFile(path, art.Size, 0o644)
	index, err3 := os.OpenFile(filepath.Join(dir, "index"), os.O_RDWR|os.O_CREATE, 0o600)
	if err := errors.Join(err2, err3); err != nil {
		t.Fatal(err)
	}
	a := newAssembly(art, reg, st, index)
	a.resumed = err == nil
	t.Cleanup(func() { _ = a.forget() })
	return a
}

// learn gives a its whole index.
func learn(t *testing.T, a *assembly, index []byte) {
	t.Helper()
	for i := range a.art.Pages {
		if err := a.putPage(i, index[i*pageBytes:i*pageBytes+pageSize(a.art, i)]); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.advance(); err != nil {
		t.Fatal(err)
	}
}

// bring puts a chunk as if it came over the uplink.
func bring(t *testing.T, a *assembly, p *page, i int, b []byte) {
	t.Helper()
	off := p.offs[i]
	data := b[off : off+int64(p.chunks[i].Len)]
	if err := a.reg.put(p, i, data); err != nil {
		t.Fatal(err)
	}
	a.reg.sw.Inject(p.id, i, data)
}

// whole checks that everything of a is there and that the swarm lacks nothing.
func whole(t *testing.T, a *assembly) {
	t.Helper()
	if !a.complete() {
		t.Fatalf("%d of %d bytes", a.progress(), a.art.Size)
	}
	if err := a.digest(context.Background()); err != nil {
		t.Error(err)
	}
	for _, p := range a.snapshot() {
		if m := a.reg.sw.Missing(p.id); len(m) > 0 {
			t.Errorf("the swarm misses %d chunks of a page", len(m))
		}
	}
}

// image repeats a block, cut into two chunks each time, so that whole index pages
// of 8 MiB repeat.
func image(t *testing.T, size int) []byte {
	t.Helper()
	for seed := range uint64(200) {
		block := random(seed, 64<<10)
		var cuts []chunk.Chunk
		err := chunk.Split(t.Context(), bytes.NewReader(bytes.Repeat(block, 16)), chunk.Default(), func(c chunk.Chunk, _ []byte) error {
			cuts = append(cuts, c)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(cuts); n > 16 && cuts[n-3].Sum == cuts[n-5].Sum && cuts[n-3].Offset-cuts[n-5].Offset == 64<<10 {
			return bytes.Repeat(block, size/len(block))
		}
	}
	t.Fatal("no block is cut in two")
	return nil
}

// TestRepeatedPage assembles an image with large equal regions: each chunk comes
// once and goes to all its places.
func TestRepeatedPage(t *testing.T) {
	b := image(t, 36<<20)
	art, index := artifactOf(t, b, 0)
	if art.Pages[1] != art.Pages[2] {
		t.Fatal("no page repeats")
	}
	reg := loneRegistry(t)
	dir := t.TempDir()
	a := assemblyOf(t, reg, dir, art)
	learn(t, a, index)
	var came int
	for _, p := range a.snapshot() {
		for _, i := range reg.sw.Missing(p.id) {
			bring(t, a, p, i, b)
			came++
		}
	}
	whole(t, a)
	if int64(came) > art.Chunks()/2+chunk.PageLen {
		t.Errorf("%d chunks came for %d", came, art.Chunks())
	}
	if err := a.forget(); err != nil {
		t.Fatal(err)
	}
	if len(reg.groups) != 0 {
		t.Errorf("%d pages stay open", len(reg.groups))
	}
	// After a restart all of it is found again.
	a = assemblyOf(t, reg, dir, art)
	whole(t, a)
}

// TestPageSharedByReleases has an old and a new release with a page in common.
func TestPageSharedByReleases(t *testing.T) {
	v1 := random(1, 24<<20)
	v2 := append(bytes.Clone(v1), random(2, 1<<20)...)
	old, oldIndex := artifactOf(t, v1, 0)
	next, nextIndex := artifactOf(t, v2, 0)
	if old.Pages[0] != next.Pages[0] {
		t.Fatal("no page in common")
	}
	reg := loneRegistry(t)
	a := assemblyOf(t, reg, t.TempDir(), old)
	learn(t, a, oldIndex)
	// The new release begins before the old one is whole.
	n := assemblyOf(t, reg, t.TempDir(), next)
	for _, i := range reg.sw.Missing(old.Pages[0])[:100] {
		bring(t, a, a.snapshot()[0], i, v1)
	}
	learn(t, n, nextIndex)
	if got := n.progress(); got < 1<<20 {
		t.Errorf("only %d bytes were taken over", got)
	}
	for _, p := range a.snapshot() {
		for _, i := range reg.sw.Missing(p.id) {
			bring(t, a, p, i, v1)
		}
	}
	whole(t, a)
	// The old release goes; what it brought to the new one stays, and is served.
	if err := a.forget(); err != nil {
		t.Fatal(err)
	}
	p := n.snapshot()[0]
	if p.missing() > 0 {
		t.Fatalf("%d chunks of the common page are missing", p.missing())
	}
	g := reg.groups[p.id]
	if got, err := g.Get(3, nil); err != nil || sha256.Sum256(got) != p.chunks[3].Sum {
		t.Errorf("the common page is not served: %v", err)
	}
	for _, p := range n.snapshot() {
		for _, i := range reg.sw.Missing(p.id) {
			bring(t, n, p, i, v2)
		}
	}
	whole(t, n)
}

// TestIndexSharedByReleases: the index of an artifact that two releases have reaches both,
// also what has changed on the disk since it was there, and stays when one of them goes.
func TestIndexSharedByReleases(t *testing.T) {
	art, index := artifactOf(t, random(1, 64<<20), 0)
	page := func(i int) []byte { return index[i*pageBytes : i*pageBytes+pageSize(art, i)] }
	if len(art.Pages) < 3 {
		t.Fatalf("%d pages", len(art.Pages))
	}
	reg, dir := loneRegistry(t), t.TempDir()
	a := assemblyOf(t, reg, dir, art)
	for i := range 2 {
		if err := a.putPage(i, page(i)); err != nil {
			t.Fatal(err)
		}
		reg.sw.Inject(a.indexID, i, nil)
	}
	if _, err := a.index.WriteAt([]byte{^index[0]}, 0); err != nil {
		t.Fatal(err)
	}
	b := assemblyOf(t, reg, t.TempDir(), art)
	if b.hasPage(0) || !b.hasPage(1) {
		t.Errorf("a page that has changed: %v, one that has not: %v", b.hasPage(0), b.hasPage(1))
	}
	for _, i := range reg.sw.Missing(a.indexID) {
		if err := reg.putIndex(b, i, page(i)); err != nil {
			t.Fatal(err)
		}
		reg.sw.Inject(a.indexID, i, nil)
	}
	if err := errors.Join(a.advance(), b.advance()); err != nil || len(b.snapshot()) != len(art.Pages) {
		t.Fatalf("%d of %d pages, %v", len(b.snapshot()), len(art.Pages), err)
	}
	if err := a.forget(); err != nil {
		t.Fatal(err)
	}
	if have, total := reg.sw.Progress(b.indexID); have != len(art.Pages) || total != have {
		t.Errorf("%d of %d pages are served", have, total)
	}
	if p, err := reg.indexes[b.indexID].Get(0, nil); err != nil || !bytes.Equal(p, page(0)) {
		t.Errorf("the first page: %d bytes, %v", len(p), err)
	}
	if err := b.forget(); err != nil {
		t.Fatal(err)
	}
	if _, total := reg.sw.Progress(b.indexID); total != 0 {
		t.Errorf("%d pages of nothing", total)
	}
}

// TestDroppedChunk: a chunk that can no longer be read is missed and fetched anew.
func TestDroppedChunk(t *testing.T) {
	b := random(3, 3<<20)
	art, index := artifactOf(t, b, 0)
	reg := loneRegistry(t)
	dir := t.TempDir()
	a := assemblyOf(t, reg, dir, art)
	var lost int
	a.onLost = func(*release.Artifact) { lost++ }
	learn(t, a, index)
	p := a.snapshot()[0]
	for i := range p.chunks {
		bring(t, a, p, i, b)
	}
	whole(t, a)
	if _, err := a.st.WriteAt([]byte{^b[p.offs[5]]}, p.offs[5]); err != nil {
		t.Fatal(err)
	}
	if err := a.digest(t.Context()); !errors.Is(err, errDigest) {
		t.Errorf("digest: %v", err)
	}
	a.reverify()
	if m := reg.sw.Missing(p.id); len(m) != 1 || m[0] != 5 || a.complete() || lost != 1 {
		t.Errorf("missing %v, told %d times", m, lost)
	}
	bring(t, a, p, 5, b)
	whole(t, a)
}

// TestDroppedWhileInstalled: the swarm finds that a chunk cannot be read in the moment in which its artifact becomes a
// held one; what is lost from then on spoils it as a base.
func TestDroppedWhileInstalled(t *testing.T) {
	b := random(8, 1<<20)
	art, index := artifactOf(t, b, 0)
	reg := loneRegistry(t)
	a := assemblyOf(t, reg, t.TempDir(), art)
	learn(t, a, index)
	final := t.TempDir()
	if err := os.WriteFile(filepath.Join(final, art.Name), b, 0o600); err != nil {
		t.Fatal(err)
	}
	p := a.snapshot()[0]
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 100 {
			p.Dropped(0)
		}
	})
	lib := newLibrary(paths{t.TempDir()}, reg, slog.New(slog.DiscardHandler))
	if err := lib.add(&release.Manifest{Version: "1"}, []*assembly{a}, final); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	p.Dropped(0)
	if lib.find(art.Sum) != nil {
		t.Error("a damaged artifact counts as a base")
	}
}

// gated is a stream whose next write waits.
type gated struct {
	stream
	entered, leave chan struct{}
}

func (g *gated) WriteAt(b []byte, off int64) (int, error) {
	g.entered <- struct{}{}
	<-g.leave
	return g.stream.WriteAt(b, off)
}

// TestPlaceOpenedWhileChunkComes: a chunk that is being written when another place
// of its page is opened reaches that place too.
func TestPlaceOpenedWhileChunkComes(t *testing.T) {
	b := random(4, 1<<20)
	art, index := artifactOf(t, b, 0)
	reg := loneRegistry(t)
	a := assemblyOf(t, reg, t.TempDir(), art)
	learn(t, a, index)
	gate := &gated{stream: a.st, entered: make(chan struct{}), leave: make(chan struct{})}
	a.st = gate
	p := a.snapshot()[0]
	wrote := make(chan error)
	go func() { wrote <- reg.put(p, 0, b[:p.chunks[0].Len]) }()
	<-gate.entered

	other := unstarted(t, reg, t.TempDir(), art)
	opened := make(chan error)
	go func() { opened <- other.start(true) }() // the index is there already
	time.Sleep(50 * time.Millisecond)           // it opens the place, or waits for the chunk
	close(gate.leave)
	if err := errors.Join(<-wrote, <-opened); err != nil {
		t.Fatal(err)
	}
	if q := other.snapshot()[0]; !q.Has(0) {
		t.Error("the chunk did not reach the place that was opened meanwhile")
	}
}

// TestDamagedRelease: an installed release that has changed on disk does not keep
// an update from a chunk that both have.
func TestDamagedRelease(t *testing.T) {
	t.Run("noticed by the update", func(t *testing.T) { damagedRelease(t, false) })
	t.Run("noticed before", func(t *testing.T) { damagedRelease(t, true) })
}

func damagedRelease(t *testing.T, before bool) {
	v1 := random(5, 24<<20)
	v2 := append(bytes.Clone(v1), random(6, 1<<20)...)
	old, oldIndex := artifactOf(t, v1, 0)
	next, nextIndex := artifactOf(t, v2, 0)
	reg := loneRegistry(t)
	dir := t.TempDir()
	v1[7<<20] ^= 1
	for name, b := range map[string][]byte{"app": v1, "index": oldIndex} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	st, err := openInstalled(dir, old, "")
	index, err2 := os.Open(filepath.Join(dir, "index"))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	seed := newAssembly(old, reg, st, index)
	seed.seed = true
	if err := seed.start(false); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = seed.forget() }()
	if before {
		seed.reverify()
	}

	a := assemblyOf(t, reg, t.TempDir(), next)
	learn(t, a, nextIndex)
	if m := reg.sw.Missing(next.Pages[0]); len(m) != 1 {
		t.Errorf("missing %v of the page that is damaged in one place", m)
	}
	for _, p := range a.snapshot() {
		for _, i := range reg.sw.Missing(p.id) {
			bring(t, a, p, i, v2)
		}
	}
	whole(t, a)
}

// TestOtherTablesHaveOtherNames: what two manifests say of one index or patch, in different words, is not one object of
// the swarm.
func TestOtherTablesHaveOtherNames(t *testing.T) {
	art := func(seed byte, last int) *release.Artifact {
		return &release.Artifact{Index: [32]byte{1}, Pages: [][32]byte{{2}, {seed}}, LastPage: last}
	}
	patch := func(seed byte, size int64) *patchFile {
		return &patchFile{p: &release.Patch{Sum: [32]byte{1}, Size: size, BlockSize: 1000, Blocks: [][32]byte{{2}, {seed}}}, have: make([]bool, 2)}
	}
	seen := map[[32]byte]string{{1}: "what the manifest says", {2}: "the digest of a blob"}
	for name, o := range map[string]swarm.Object{
		"index":                       indexObject(art(3, 7)),
		"index with another page":     indexObject(art(4, 7)),
		"index with a shorter page":   indexObject(art(3, 6)),
		"patch":                       patch(3, 1500).object(),
		"patch with another block":    patch(4, 1500).object(),
		"patch with a shorter block":  patch(3, 1400).object(),
		"index of the patch's blocks": {ID: tableID("index", patch(3, 1500).object())},
	} {
		if other := seen[o.ID]; other != "" {
			t.Errorf("%s has the name of %s", name, other)
		}
		seen[o.ID] = name
	}
	if a, b := indexObject(art(3, 7)).ID, indexObject(art(3, 7)).ID; a != b {
		t.Error("one table has two names")
	}
}
