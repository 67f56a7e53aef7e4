package delta

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"updraft/delta/chunk"
	"updraft/delta/release"
)

// readSize is the size of the reads from an input.
const readSize = 1 << 20

// known says where chunks are stored: in packs of earlier releases, and in the one
// being made, which is pack 0.
type known struct {
	packs []release.Pack // all packs that could be referred to; 0 is the new one
	at    map[[32]byte]Location
}

// readKnown takes the chunks of earlier releases from their tables at the origin.
// A pack that is not there whole is left out with its chunks: a release must not
// refer to it.
func readKnown(origin string, previous []*release.Manifest) (*known, error) {
	k := &known{packs: make([]release.Pack, 1), at: map[[32]byte]Location{}}
	number := map[[32]byte]int{}
	for _, m := range previous {
		for _, p := range m.Packs {
			if _, ok := number[p.Sum]; ok {
				continue
			}
			st, err := os.Stat(filepath.Join(origin, filepath.FromSlash(ObjectName(PackDir, p.Sum))))
			if err != nil && !absent(err) {
				return nil, fmt.Errorf("delta: %w", err)
			}
			if err != nil || st.Size() != p.Size {
				continue
			}
			number[p.Sum] = len(k.packs)
			k.packs = append(k.packs, p)
		}
		if err := k.add(origin, m, number); err != nil {
			return nil, fmt.Errorf("release %s: %w", m.Version, err)
		}
	}
	return k, nil
}

func (k *known) add(origin string, m *release.Manifest, number map[[32]byte]int) error {
	for i := range m.Artifacts {
		a := &m.Artifacts[i]
		chunks, err := ReadIndex(origin, a)
		if absent(err) {
			continue // pruned
		}
		if err != nil {
			return err
		}
		locs, err := ReadPackMap(origin, m, a)
		if absent(err) {
			continue
		}
		if err != nil {
			return err
		}
		for j, c := range chunks {
			l := locs[j]
			n, ok := number[m.Packs[l.Pack].Sum]
			if _, have := k.at[c.Sum]; have || !ok {
				continue
			}
			l.Pack = n
			k.at[c.Sum] = l
		}
	}
	return nil
}

// jobBytes is how much each job that compresses has to do at least: it takes 34 MiB.
const jobBytes = 4 << 20

// job is a new chunk on its way into the pack.
type job struct {
	c      chunk.Chunk
	data   []byte // plain
	stored []byte
	raw    bool
	done   chan struct{} // closed when stored is set
}

// chunks reads all inputs and writes the new pack and the indexes.
func (b *builder) chunks(ctx context.Context) error {
	pack, err := b.openPack()
	if err != nil {
		return err
	}
	defer pack.discard()
	g, gctx := errgroup.WithContext(ctx)
	p := &packer{b: b, pack: pack, stop: gctx.Done(),
		work: make(chan *job), order: make(chan *job, 2*b.o.Jobs)}
	g.Go(func() error {
		defer close(p.order)
		defer close(p.work)
		for i := range b.sources {
			if err := p.read(gctx, i); err != nil {
				return err
			}
		}
		return pack.cut()
	})
	var size int64
	for _, src := range b.sources {
		size += src.Size()
	}
	for range min(int64(b.o.Jobs), 1+size/jobBytes) {
		g.Go(p.compress)
	}
	g.Go(p.store)
	if err := g.Wait(); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	if pack.size == 0 {
		return nil
	}
	sum, err := pack.publish()
	b.known.packs[0] = release.Pack{Sum: sum, Size: pack.size}
	b.stats.PackSize = pack.size
	return err
}

// packer compresses chunks on several goroutines and stores them in order, behind those
// that an interrupted Build has stored.
type packer struct {
	b     *builder
	pack  *packFile
	stop  <-chan struct{} // closed when one of the goroutines has failed
	work  chan *job       // to compress
	order chan *job       // to store, in order; its capacity bounds the memory
}

var errStopped = errors.New("delta: stopped")

// read cuts one input and hands on what no pack holds.
func (p *packer) read(ctx context.Context, i int) error {
	src, a, stats := p.b.sources[i], &p.b.m.Artifacts[i], &p.b.stats.Artifacts[i]
	h := sha256.New()
	cut := chunk.NewCutter(chunk.Default(), func(c chunk.Chunk, data []byte) error {
		src.chunks = append(src.chunks, c)
		stats.Chunks++
		if _, ok := p.b.known.at[c.Sum]; ok {
			return nil
		}
		l, again, err := p.pack.again(c)
		p.b.known.at[c.Sum] = l // of one that is not there again, store sets it before anybody looks
		stats.NewChunks++
		stats.NewBytes += int64(c.Len)
		if again {
			stats.Resumed++
		}
		if again || err != nil {
			return err
		}
		return p.submit(&job{c: c, data: append([]byte(nil), data...), done: make(chan struct{})})
	})
	buf := make([]byte, readSize)
	for off := int64(0); off < src.Size(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		end := min(off+readSize, src.Size())
		if off < src.listing {
			end = min(end, src.listing)
		}
		n, err := src.ReadAt(buf[:end-off], off)
		if int64(n) < end-off {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("%w: %s at %d: %w", ErrInput, src.path, off, err)
		}
		h.Write(buf[:n])
		if _, err := cut.Write(buf[:n]); err != nil {
			return err
		}
		if off += int64(n); off == src.listing {
			if err := cut.Boundary(); err != nil {
				return err
			}
		}
		p.b.report(Progress{Stage: StageChunks, Artifact: a.Name, Done: off, Total: src.Size()})
	}
	if err := cut.Close(); err != nil {
		return err
	}
	h.Sum(a.Sum[:0])
	return nil
}

func (p *packer) submit(j *job) error {
	select {
	case p.order <- j:
	case <-p.stop:
		return errStopped
	}
	select {
	case p.work <- j:
	case <-p.stop:
		return errStopped
	}
	return nil
}

func (p *packer) compress() error {
	enc, err := newEncoder()
	if err != nil {
		return err
	}
	defer enc.put()
	for j := range p.work {
		j.stored, j.raw = enc.encode(make([]byte, 0, len(j.data)), j.data)
		close(j.done)
	}
	return nil
}

// store writes the pack. It alone touches the locations of the chunks it writes until
// the tables are made.
func (p *packer) store() error {
	locs := map[[32]byte]Location{}
	for j := range p.order {
		select {
		case <-j.done:
		case <-p.stop:
			return errStopped
		}
		l, err := p.pack.add(j.c.Sum, j.stored, j.raw)
		if err != nil {
			return err
		}
		locs[j.c.Sum] = l
	}
	// order is closed: read has ended and looks no more.
	for sum, l := range locs {
		p.b.known.at[sum] = l
	}
	return nil
}

// tables writes indexes and pack maps, and names the packs in the manifest: the new
// one first, then those of earlier releases that are referred to.
func (b *builder) tables() error {
	used := make([]bool, len(b.known.packs))
	for _, src := range b.sources {
		for _, c := range src.chunks {
			used[b.known.at[c.Sum].Pack] = true
		}
	}
	number := make([]int, len(used))
	for i, p := range b.known.packs {
		if used[i] {
			number[i] = len(b.m.Packs)
			b.m.Packs = append(b.m.Packs, p)
		}
	}
	for i, src := range b.sources {
		if err := b.table(i, src, number); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) table(i int, src *input, number []int) error {
	a, stats := &b.m.Artifacts[i], &b.stats.Artifacts[i]
	locs := make(PackMap, len(src.chunks))
	counted := map[int64]bool{}
	for j, c := range src.chunks {
		l := b.known.at[c.Sum]
		if l.Pack == 0 && !counted[l.Offset] {
			counted[l.Offset] = true
			stats.Stored += int64(l.Len)
		}
		l.Pack = number[l.Pack]
		locs[j] = l
	}
	index := chunk.AppendIndex(nil, src.chunks)
	a.Pages, a.LastPage = chunk.PageSums(index)
	m := locs.Append(nil)
	a.MapSize = int64(len(m))
	var err error
	if a.Index, err = writeObject(b.o.Out, IndexDir, index); err != nil {
		return err
	}
	a.Map, err = writeObject(b.o.Out, MapDir, m)
	return err
}
