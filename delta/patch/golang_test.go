package patch

import (
	"bytes"
	"encoding/binary"
	"os"
	"runtime"
	"slices"
	"testing"
)

// TestGoTables reads the tables of a program that is at hand: this one.
func TestGoTables(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("programs are not ELF files here")
	}
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	ims, err := findImages(t.Context(), bytes.NewReader(b))
	if err != nil || len(ims) == 0 || ims[0].off != 0 {
		t.Fatal(len(ims), err)
	}
	im := &ims[0]
	found := map[uint8]area{}
	for _, a := range im.areas {
		if _, ok := found[a.kind]; !ok {
			found[a.kind] = a
		}
	}
	for _, k := range []uint8{areaNames, areaPCs, areaFuncTab, areaFuncs, areaFuncData, areaTypes, areaLinks} {
		if _, ok := found[k]; !ok {
			t.Fatalf("no area of kind %d in %v", k, im.areas)
		}
	}
	targets := func(kind, rel uint8) map[uint64]bool {
		a := found[kind]
		v, _, _ := im.addr(a.off)
		out := map[uint64]bool{}
		for at := int64(0); at < a.n; at += blockLen { // as parts of covers are looked at
			lo := max(0, a.off+at-margin)
			hi := min(a.off+at+blockLen+margin, int64(len(b)))
			for _, r := range im.refs(nil, b[lo:hi], int(a.off+at-lo), int(min(a.off+at+blockLen, a.off+a.n)-lo), v+uint64(at), a) {
				if r.rel == rel {
					out[r.target] = true
				}
			}
		}
		return out
	}
	funcs := targets(areaFuncTab, areaFuncTab)
	if records := targets(areaFuncTab, areaStart); len(records) < len(funcs)*9/10 || len(funcs) < 1000 {
		t.Errorf("%d functions, %d records", len(funcs), len(records))
	}
	entries, missed := targets(areaFuncs, areaFuncTab), 0
	for v := range funcs {
		if !entries[v] {
			missed++
		}
	}
	if missed > len(funcs)/100 {
		t.Errorf("%d of %d functions have no record", missed, len(funcs))
	}
	pcs := found[areaPCs]
	start, _, _ := im.addr(pcs.off)
	all, out := targets(areaFuncs, areaPCs), 0
	for v := range all {
		if v < start || v >= start+uint64(pcs.n) {
			out++
		}
	}
	if len(all) < 1000 || out > len(all)/100 {
		t.Errorf("%d of %d offsets of records lead out of their table", out, len(all))
	}

	// The module's data names an address of code that no index can say.
	x := elfReader{src: bytes.NewReader(b), im: im, head: b, wide: true}
	le := binary.LittleEndian
	for _, s := range x.sections() {
		if m := le.Uint32(b[s.off:]); s.kind == areaCode || m != 0xfffffff0 && m != 0xfffffff1 {
			continue
		}
		v, _, _ := im.addr(s.off)
		le.PutUint64(b[bytes.Index(b, x.module(v)[:moduleWords*8])+22*8:], 1<<63)
		break
	}
	if ims, err = findImages(t.Context(), bytes.NewReader(b)); err != nil || len(ims) == 0 {
		t.Fatal(len(ims), err)
	}
	var kinds []uint8
	for _, a := range ims[0].areas {
		kinds = append(kinds, a.kind)
	}
	if slices.Contains(kinds, areaFuncTab) || slices.Contains(kinds, areaFuncs) || !slices.Contains(kinds, areaPCs) {
		t.Errorf("code said to be at 1<<63: areas of kinds %v", kinds)
	}
}
