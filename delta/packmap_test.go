package delta_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"updraft/delta"
)

func sampleMap() delta.PackMap {
	return delta.PackMap{
		{Pack: 0, Offset: 0, Len: 20_000},
		{Pack: 0, Offset: 20_000, Len: 262_144, Raw: true},
		{Pack: 2, Offset: 5, Len: 1},
		{Pack: 2, Offset: 6, Len: 1 << 20},
		{Pack: 0, Offset: 0, Len: 20_000},
		{Pack: 1, Offset: 1 << 39, Len: 7},
	}
}

var sampleSizes = []int64{300_000, 1<<39 + 7, 6 + 1<<20}

func TestPackMapVector(t *testing.T) {
	golden(t, "sample.map.hex", []byte(hex.EncodeToString(sampleMap().Append(nil))+"\n"))
}

// golden compares b with a file in testdata.
func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(path, b, 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(b, want) {
		t.Errorf("%s differs from the published vector:\n%s", name, b)
	}
}

func TestPackMapRoundTrip(t *testing.T) {
	for _, m := range []delta.PackMap{nil, sampleMap()} {
		b := m.Append(nil)
		got, err := delta.ParsePackMap(b, len(m), sampleSizes)
		must(t, err)
		if fmt.Sprint(got) != fmt.Sprint(m) {
			t.Errorf("got %v", got)
		}
	}
	var long delta.PackMap
	var off int64
	for range 10_000 {
		long = append(long, delta.Location{Offset: off, Len: 40_000})
		off += 40_000
	}
	if b := long.Append(nil); len(b) > 4+3*10_000 {
		t.Errorf("10000 chunks in a row take %d bytes", len(b))
	}
}

func TestPackMapRefuses(t *testing.T) {
	good := sampleMap().Append(nil)
	for i := range good {
		if _, err := delta.ParsePackMap(good[:i], 6, sampleSizes); !errors.Is(err, delta.ErrMap) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	for name, c := range map[string]struct {
		b      []byte
		chunks int
		packs  []int64
	}{
		"trailing":      {append(bytes.Clone(good), 0), 6, sampleSizes},
		"fewer chunks":  {good, 5, sampleSizes},
		"more chunks":   {good, 7, sampleSizes},
		"huge count":    {good, 1 << 30, sampleSizes},
		"negative":      {good, -1, sampleSizes},
		"no such pack":  {good, 6, sampleSizes[:2]},
		"beyond a pack": {good, 6, []int64{300_000, 1<<39 + 6, 6 + 1<<20}},
		"version":       {append([]byte("UDM2"), good[4:]...), 6, sampleSizes},
		"no length":     {[]byte("UDM1\x00"), 1, sampleSizes},
		"useless jump":  {[]byte("UDM1\x05\x00\x00"), 1, sampleSizes},
		"long number":   {[]byte("UDM1\x84\x00"), 1, sampleSizes},
		"too long":      {delta.PackMap{{Len: 1<<20 + 1}}.Append(nil), 1, []int64{1 << 30}},
	} {
		if _, err := delta.ParsePackMap(c.b, c.chunks, c.packs); !errors.Is(err, delta.ErrMap) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParsePackMap(f *testing.F) {
	f.Add(sampleMap().Append(nil), 6)
	f.Add([]byte("UDM1"), 0)
	f.Fuzz(func(t *testing.T, b []byte, chunks int) {
		m, err := delta.ParsePackMap(b, chunks, sampleSizes)
		if err != nil {
			return
		}
		if !bytes.Equal(m.Append(nil), b) {
			t.Fatal("a map that parses must be written as it was read")
		}
		for _, l := range m {
			if l.End() > sampleSizes[l.Pack] || l.Offset < 0 {
				t.Fatalf("%+v lies outside its pack", l)
			}
		}
	})
}
