package delta

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"updraft/delta/chunk"
	"updraft/delta/release"
)

// With a Maker, what a Build has finished is noted in its staging directory, for the
// next one to take when this one does not come to its end:
//
//	made/chunks  what the pack holds: 32 bytes that name the maker, then for each chunk,
//	             in order, its digest (32), the bytes stored (4, big endian; the highest
//	             bit: raw) and a digest of both the chunk's digest and what is stored (32)
//	made/<key>   of a patch: its digest, its bytes, and whether it was worth keeping; the
//	             name is a digest of all that decides on its bytes
//	packs/.part  the pack at work; it gets the name of its digest as always
//
// Nothing here is believed before the bytes it speaks of have been hashed, so neither
// the order in which files reach the disk nor what happens to them there matters: what
// does not match is made again.
const (
	madeDir    = "made"
	chunksFile = "chunks"
	partFile   = ".part"
)

// stageDirs are the directories of the staging directory.
var stageDirs = []string{PackDir, PatchDir, IndexDir, MapDir, madeDir}

// recordLen is the length in bytes of a chunk's record, and rawBit marks what is stored
// as it is.
const (
	recordLen = 32 + 4 + 32
	rawBit    = 1 << 31
)

// packFile is the new pack. With a table it is taken up where an interrupted Build left
// it, as long as the same chunks come in the same order. The reader of the inputs
// calls again and cut, before anybody else touches it; then it belongs to whom adds.
type packFile struct {
	*objectWriter
	table   *os.File // of the chunks in it; nil: there is none
	records *bufio.Reader
	n       int64 // records that hold
	isCut   bool
}

// openPack begins the new pack, or goes on with the one that is there.
func (b *builder) openPack() (*packFile, error) {
	if b.o.Maker == "" {
		w, err := newObject(b.o.Out, PackDir)
		return &packFile{objectWriter: w, isCut: true}, err
	}
	dir := filepath.Join(b.o.Out, PackDir)
	for _, d := range stageDirs {
		if err := filesOnly(filepath.Join(b.o.Out, d)); err != nil {
			return nil, fmt.Errorf("delta: %w", err)
		}
	}
	if err := unfinish(dir); err != nil {
		return nil, fmt.Errorf("delta: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, partFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("delta: %w", err)
	}
	w := &packFile{objectWriter: &objectWriter{dir: dir, f: f, hash: sha256.New(), stays: true}}
	if w.table, err = os.OpenFile(filepath.Join(b.o.Out, madeDir, chunksFile), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		f.Close()
		return nil, fmt.Errorf("delta: %w", err)
	}
	w.records = bufio.NewReader(w.table)
	if err := w.begin(sha256.Sum256([]byte(b.o.Maker))); err != nil {
		w.discard()
		return nil, err
	}
	return w, nil
}

// filesOnly makes a directory of the staging directory, and removes what is there but is no
// regular file: no Build left that.
func filesOnly(dir string) error {
	if info, err := os.Lstat(dir); err == nil && !info.IsDir() {
		if err := os.Remove(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// unfinish gives the one pack that an interrupted Build finished in dir the name of one
// at work.
func unfinish(dir string) error {
	part := filepath.Join(dir, partFile)
	if _, err := os.Lstat(part); !absent(err) {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return nil
	}
	return os.Rename(filepath.Join(dir, entries[0].Name()), part)
}

// begin reads the head of the table; that of another maker counts as empty.
func (w *packFile) begin(maker [32]byte) error {
	var head [32]byte
	if _, err := io.ReadFull(w.records, head[:]); err == nil && head == maker {
		return nil
	}
	if err := w.table.Truncate(0); err != nil {
		return fmt.Errorf("delta: %w", err)
	}
	if _, err := w.table.WriteAt(maker[:], 0); err != nil {
		return fmt.Errorf("delta: %w", err)
	}
	return w.cut()
}

// again returns where c lies in what the interrupted Build has stored, if that is whole
// and c comes next in it. The first chunk of which it is not ends this: the rest is cut
// off.
func (w *packFile) again(c chunk.Chunk) (Location, bool, error) {
	if w.isCut {
		return Location{}, false, nil
	}
	var rec [recordLen]byte
	if _, err := io.ReadFull(w.records, rec[:]); err != nil || [32]byte(rec[:32]) != c.Sum {
		return Location{}, false, w.cut()
	}
	n := binary.BigEndian.Uint32(rec[32:])
	l := Location{Offset: w.size, Len: int(n &^ rawBit), Raw: n&rawBit != 0}
	if l.Len > c.Len {
		return Location{}, false, w.cut()
	}
	stored := make([]byte, l.Len)
	if _, err := w.f.ReadAt(stored, w.size); err != nil || rec != record(c.Sum, stored, l.Raw) {
		return Location{}, false, w.cut()
	}
	w.hash.Write(stored)
	w.size += int64(l.Len)
	w.n++
	return l, true, nil
}

// cut drops what again has not returned, and lets chunks be added behind what it has.
func (w *packFile) cut() error {
	if w.isCut {
		return nil
	}
	w.isCut = true
	table := sha256.Size + w.n*recordLen
	_, err := w.f.Seek(w.size, io.SeekStart)
	_, terr := w.table.Seek(table, io.SeekStart)
	if err := errors.Join(err, terr, w.f.Truncate(w.size), w.table.Truncate(table)); err != nil {
		return fmt.Errorf("delta: %w", err)
	}
	return nil
}

// add stores a chunk and returns where it lies.
func (w *packFile) add(sum [32]byte, stored []byte, raw bool) (Location, error) {
	l := Location{Offset: w.size, Len: len(stored), Raw: raw}
	if _, err := w.Write(stored); err != nil {
		return l, fmt.Errorf("delta: %w", err)
	}
	if w.table == nil {
		return l, nil
	}
	rec := record(sum, stored, raw)
	if _, err := w.table.Write(rec[:]); err != nil {
		return l, fmt.Errorf("delta: %w", err)
	}
	return l, nil
}

func (w *packFile) discard() {
	w.objectWriter.discard()
	if w.table != nil {
		w.table.Close()
	}
}

func record(sum [32]byte, stored []byte, raw bool) (rec [recordLen]byte) {
	copy(rec[:], sum[:])
	n := uint32(len(stored))
	if raw {
		n |= rawBit
	}
	binary.BigEndian.PutUint32(rec[32:], n)
	h := sha256.New()
	h.Write(rec[:36])
	h.Write(stored)
	h.Sum(rec[:36])
	return rec
}

// outcome is what came of making a patch.
type outcome struct {
	sum  [32]byte
	size int64
	kept bool // it lies below Out; else it was not worth it
}

// patchKey names a patch of artifact i by all that decides on its bytes: digests, what
// the streams are, options and the maker.
func (b *builder) patchKey(i int, base *release.Artifact) [32]byte {
	a, o := &b.m.Artifacts[i], b.o.Patch
	o.Jobs, o.Scratch, o.Progress = 0, "", nil
	o.OldListing, o.NewListing = base.ListingSize, b.sources[i].listing
	return sha256.Sum256(fmt.Appendf(nil, "%q %s %x %d %x %d %+v", b.o.Maker, a.Kind, base.Sum, base.Size, a.Sum, a.Size, o))
}

// text is how an outcome is noted, with a digest of it and the key.
func (o outcome) text(key [32]byte) []byte {
	line := fmt.Sprintf("%x %d %t", o.sum, o.size, o.kept)
	return fmt.Appendf(nil, "%s %x\n", line, sha256.Sum256(append(key[:], line...)))
}

func (b *builder) madePath(key [32]byte) string {
	return filepath.Join(b.o.Out, madeDir, hex.EncodeToString(key[:]))
}

// note makes an outcome durable.
func (b *builder) note(key [32]byte, o outcome) error {
	if b.o.Maker == "" {
		return nil
	}
	b.own[key] = true
	name := b.madePath(key)
	if err := renameio.WriteFile(name, o.text(key), 0o600, renameio.WithTempDir(filepath.Dir(name))); err != nil {
		return fmt.Errorf("delta: %w", err)
	}
	return syncDir(filepath.Dir(name))
}

// noted returns the outcome that an interrupted Build noted, if there is one and it is
// whole.
func (b *builder) noted(key [32]byte) (outcome, bool) {
	if b.o.Maker == "" {
		return outcome{}, false
	}
	got, err := os.ReadFile(b.madePath(key))
	if err != nil {
		return outcome{}, false
	}
	var o outcome
	var sum []byte
	if _, err := fmt.Sscanf(string(got), "%x %d %t", &sum, &o.size, &o.kept); err != nil || len(sum) != len(o.sum) {
		return outcome{}, false
	}
	o.sum = [32]byte(sum)
	return o, bytes.Equal(got, o.text(key))
}

// again describes the patch of artifact i that has been made: by an interrupted Build, or
// by this one for another artifact with the same bytes. It is false if there is none, or it
// is not what it was.
func (b *builder) again(i int, p pair, cost int64) (PatchStats, bool) {
	key := b.patchKey(i, p.base)
	o, ok := b.noted(key)
	stats := PatchStats{BaseVersion: p.from.Version, Size: o.size, Chunks: cost, Kept: worth(o.size, cost), Resumed: !b.own[key]}
	if !ok || stats.Kept != o.kept {
		return stats, false
	}
	if !o.kept {
		return stats, true
	}
	f, err := os.Open(filepath.Join(b.o.Out, filepath.FromSlash(ObjectName(PatchDir, o.sum))))
	if err != nil {
		return stats, false
	}
	defer f.Close()
	h := sha256.New()
	if n, err := io.Copy(h, f); err != nil || n != o.size || [32]byte(h.Sum(nil)) != o.sum {
		return stats, false
	}
	d, err := b.describe(i, p, io.NewSectionReader(f, 0, o.size))
	if err != nil {
		return stats, false
	}
	d.Sum = o.sum
	b.m.Artifacts[i].Patches = append(b.m.Artifacts[i].Patches, d)
	return stats, true
}

// sweep removes from the staging directory what this release has no use for: what was
// made of other contents or by another maker, and what was being written when a Build
// ended. So what several interrupted ones leave is at most one release.
func (b *builder) sweep() error {
	if b.o.Maker == "" {
		return nil
	}
	pack := ObjectName(PackDir, b.known.packs[0].Sum)
	stay := map[string]bool{madeDir + "/" + chunksFile: true, pack: b.stats.PackSize > 0}
	for i := range b.sources {
		for _, p := range b.pairs(i) {
			key := b.patchKey(i, p.base)
			stay[ObjectName(madeDir, key)] = true
			if o, ok := b.noted(key); ok && o.kept {
				stay[ObjectName(PatchDir, o.sum)] = true
			}
		}
	}
	for _, dir := range stageDirs {
		entries, err := os.ReadDir(filepath.Join(b.o.Out, dir))
		if err != nil {
			return fmt.Errorf("delta: %w", err)
		}
		for _, e := range entries {
			if stay[dir+"/"+e.Name()] {
				continue
			}
			if err := os.RemoveAll(filepath.Join(b.o.Out, dir, e.Name())); err != nil {
				return fmt.Errorf("delta: %w", err)
			}
		}
	}
	return nil
}
