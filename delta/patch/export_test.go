package patch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
)

// FixHeader returns p with the digest of its header put right.
func FixHeader(p []byte) []byte {
	if len(p) < headLen {
		return p
	}
	p = bytes.Clone(p)
	n := min(int64(binary.LittleEndian.Uint32(p[8:])), int64(len(p)-headLen))
	sum := sha256.Sum256(p[headLen : headLen+n])
	copy(p[12:headLen], sum[:8])
	return p
}

// Recipe returns the recipe of p, unpacked, or nil.
func Recipe(p []byte) []byte {
	o, err := openPatch(bytes.NewReader(p))
	if err != nil || o.recipe == nil {
		return nil
	}
	defer o.z.Close()
	d := &decoder{z: o.z}
	return d.stream(&fields{b: p[o.off-o.header.recipe : o.off]}, nil, maxRecipe)
}

// WithRecipe returns p, which has a recipe, with another one.
func WithRecipe(p, plain []byte) []byte {
	o, err := openPatch(bytes.NewReader(p))
	if err != nil {
		return p
	}
	defer o.z.Close()
	h := *o.header
	r := appendStream(nil, plain)
	h.recipe = int64(len(r))
	return append(append(h.append(nil), r...), p[o.off:]...)
}

// CreateSlabs is Create for large streams, a slab at a time.
func CreateSlabs(ctx context.Context, old, new Source, slab int64) ([]byte, error) {
	m, err := createSlabs(ctx, old, new, slab, job{Options: Options{Jobs: 2, SegmentSize: 64 << 10}})
	if err != nil {
		return nil, err
	}
	return append(m.head, bytes.Join(m.payloads, nil)...), nil
}

// Kinds returns how many segments of each kind p has.
func Kinds(p []byte) (n [8]int) {
	o, err := openPatch(bytes.NewReader(p))
	if err != nil {
		return n
	}
	defer o.z.Close()
	for _, s := range o.segs {
		n[s.kind]++
	}
	return n
}
