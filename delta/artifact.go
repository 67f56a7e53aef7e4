package delta

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"updraft/delta/chunk"
	"updraft/delta/release"
)

const (
	// cachedChunks bounds the decoded chunks a stream of OpenArtifact keeps: about
	// 4 MiB, at most 16.
	cachedChunks = 64
	// maxIndex and maxMap bound what is read of an index and a pack map.
	maxIndex = release.MaxPages * chunk.PageLen * chunk.RecordSize
	maxMap   = 64 << 20
)

// Stream is an artifact as bytes: a file's own, or a tree's listing and contents.
// ReadAt is safe for concurrent use.
type Stream interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// ReadIndex reads the chunk table of a from an origin directory, verified.
func ReadIndex(origin string, a *release.Artifact) ([]chunk.Chunk, error) {
	if a.Size == 0 {
		return nil, nil
	}
	b, err := readObject(origin, IndexDir, a.Index, maxIndex)
	if err != nil {
		return nil, err
	}
	list, err := chunk.ParseIndex(b)
	if err != nil {
		return nil, err
	}
	if int64(len(list)) != a.Chunks() || streamSize(list) != a.Size {
		return nil, fmt.Errorf("%w: index of %s has %d chunks, %d bytes", ErrCorrupt, a.Name, len(list), streamSize(list))
	}
	return list, nil
}

func streamSize(list []chunk.Chunk) int64 {
	if len(list) == 0 {
		return 0
	}
	last := list[len(list)-1]
	return last.Offset + int64(last.Len)
}

// ReadPackMap reads the pack map of a from an origin directory, verified.
func ReadPackMap(origin string, m *release.Manifest, a *release.Artifact) (PackMap, error) {
	if a.Size == 0 {
		return nil, nil
	}
	b, err := readObject(origin, MapDir, a.Map, maxMap)
	if err != nil {
		return nil, err
	}
	return ParsePackMap(b, int(a.Chunks()), PackSizes(m))
}

// PackSizes returns the sizes in bytes of the manifest's packs, as ParsePackMap
// wants them.
func PackSizes(m *release.Manifest) []int64 {
	sizes := make([]int64, len(m.Packs))
	for i, p := range m.Packs {
		sizes[i] = p.Size
	}
	return sizes
}

// OpenArtifact opens artifact a of m for reading, from the packs in an origin
// directory. Every chunk is verified before any of its bytes are returned; errors
// of ReadAt wrap ErrCorrupt when stored bytes are wrong.
func OpenArtifact(origin string, m *release.Manifest, a *release.Artifact) (Stream, error) {
	chunks, err := ReadIndex(origin, a)
	if err != nil {
		return nil, err
	}
	locs, err := ReadPackMap(origin, m, a)
	if err != nil {
		return nil, err
	}
	dec, err := NewDecoder()
	if err != nil {
		return nil, err
	}
	return &packStream{origin: origin, m: m, size: a.Size, chunks: chunks, locs: locs, dec: dec,
		packs: map[int]*os.File{}, cache: map[int][]byte{}}, nil
}

// packStream reads an artifact from packs.
type packStream struct {
	origin string
	m      *release.Manifest
	size   int64
	chunks []chunk.Chunk
	locs   PackMap
	dec    *Decoder

	mu    sync.Mutex // guards all below
	packs map[int]*os.File
	cache map[int][]byte // plain bytes by chunk number
	order []int          // of cache, oldest first
}

func (s *packStream) Size() int64 { return s.size }

func (s *packStream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, f := range s.packs {
		errs = append(errs, f.Close())
	}
	clear(s.packs)
	return errors.Join(errs...)
}

func (s *packStream) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("delta: read at %d", off)
	}
	i := sort.Search(len(s.chunks), func(i int) bool { return s.chunks[i].Offset > off }) - 1
	for ; n < len(p); i++ {
		at := off + int64(n)
		if at >= s.size {
			return n, io.EOF
		}
		data, err := s.chunk(i)
		if err != nil {
			return n, err
		}
		n += copy(p[n:], data[at-s.chunks[i].Offset:])
	}
	return n, nil
}

// chunk returns the plain bytes of chunk i.
func (s *packStream) chunk(i int) ([]byte, error) {
	s.mu.Lock()
	data, ok := s.cache[i]
	s.mu.Unlock()
	if ok {
		return data, nil
	}
	l := s.locs[i]
	f, err := s.pack(l.Pack)
	if err != nil {
		return nil, err
	}
	stored := make([]byte, l.Len)
	if _, err := f.ReadAt(stored, l.Offset); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: %s ends early", ErrCorrupt, f.Name())
		}
		return nil, fmt.Errorf("delta: %w", err)
	}
	if data, err = s.dec.Chunk(nil, stored, l.Raw, s.chunks[i]); err != nil {
		return nil, fmt.Errorf("%s at %d: %w", f.Name(), l.Offset, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.cache[i]; !ok {
		if len(s.order) >= cachedChunks {
			delete(s.cache, s.order[0])
			s.order = s.order[1:]
		}
		s.cache[i] = data
		s.order = append(s.order, i)
	}
	return data, nil
}

// pack returns an open pack.
func (s *packStream) pack(i int) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.packs[i]; ok {
		return f, nil
	}
	f, err := os.Open(filepath.Join(s.origin, filepath.FromSlash(ObjectName(PackDir, s.m.Packs[i].Sum))))
	if err != nil {
		return nil, fmt.Errorf("delta: %w", err)
	}
	s.packs[i] = f
	return f, nil
}

// CheckStream reads r to its end and compares size and digest with those of a. The
// error wraps ErrCorrupt when they differ.
func CheckStream(r io.Reader, a *release.Artifact) error {
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return err
	}
	if n != a.Size || [32]byte(h.Sum(nil)) != a.Sum {
		return fmt.Errorf("%w: artifact %s", ErrCorrupt, a.Name)
	}
	return nil
}
