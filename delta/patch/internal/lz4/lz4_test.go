package lz4_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"testing"

	"updraft/delta/patch/internal/lz4"
	"updraft/delta/patch/internal/parse/parsetest"
)

// codec is the package's, for frames or for blocks without one.
func codec(bare bool) parsetest.Codec {
	c := parsetest.Codec{Split: lz4.Split, Join: lz4.Join, Corrupt: lz4.ErrCorrupt}
	if bare {
		c.Split = func(src io.ReaderAt, off, end int64, plain, parse io.Writer, unit func() error) (int64, error) {
			return end - off, lz4.SplitBlock(src, off, end, plain, parse, unit)
		}
	}
	return c
}

// tool runs the lz4 program on b.
func tool(t testing.TB, b []byte, arg ...string) []byte {
	t.Helper()
	return parsetest.Tool(t, b, "lz4", append(arg, "-c", "-q", "-")...)
}

var toolArgs = [][]string{
	{"-1"}, {"-9"}, {"-12"}, {"--fast=5"}, {"-B4", "-BD", "-BX"}, {"-B5", "-9"}, {"-B6", "--no-frame-crc"},
	{"-B7", "-BD"}, {"-BX"}, {"-l"}, {"-l", "-9"}, {"-B4", "--no-frame-crc", "-12"},
}

func TestTool(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and of one goroutine")
	}
	noise := make([]byte, 600<<10)
	rand.NewChaCha8([32]byte{2}).Read(noise)
	inputs := map[string][]byte{
		"empty": nil, "one": {'x'}, "sample": parsetest.Sample(3, 1<<20), "noise": noise, "zeros": make([]byte, 9<<20),
		"late": append(parsetest.Sample(1, 8<<20-5), noise...), "full": parsetest.Sample(4, 8<<20),
	}
	for name, b := range inputs {
		for _, arg := range toolArgs {
			slow := len(b) > 2<<20 && (len(arg) > 1 && arg[1] != "-BD" || arg[0] > "-4" && arg[0] != "-l")
			if len(b) == 0 && arg[0] == "-l" || slow {
				continue
			}
			t.Run(fmt.Sprint(name, arg), func(t *testing.T) {
				packed := tool(t, b, arg...)
				k := codec(false).Check(t, append(packed, 0, 0, 0x80, 0))
				if !bytes.Equal(k.Plain, b) || k.Packed != int64(len(packed)) {
					t.Errorf("%d of %d packed, %d of %d plain", k.Packed, len(packed), len(k.Plain), len(b))
				}
			})
		}
	}
}

// TestGolden splits frames of lz4 1.9.4; they all hold parsetest.Sample(1, 5000).
func TestGolden(t *testing.T) {
	for name, b := range parsetest.Goldens(t, "testdata/*.lz4") {
		if k := codec(false).Check(t, b); !bytes.Equal(k.Plain, parsetest.Sample(1, 5000)) {
			t.Errorf("%s: other bytes", name)
		}
	}
}

// maker writes blocks of arbitrary sequences.
type maker struct {
	r     *rand.Rand
	plain []byte
}

func (m *maker) length(b []byte, n int) []byte {
	if n < 15 {
		return b
	}
	for n -= 15; n >= 255; n -= 255 {
		b = append(b, 255)
	}
	return append(b, byte(n))
}

func (m *maker) number() int {
	switch m.r.IntN(30) {
	case 0:
		return m.r.IntN(300 << 10)
	case 1, 2, 3:
		return m.r.IntN(400)
	}
	return m.r.IntN(20)
}

// block returns a block of at most size plain bytes.
func (m *maker) block(size int) []byte {
	var b []byte
	first := len(m.plain)
	for n := m.r.IntN(30); ; n-- {
		lit, match := m.number(), m.number()+4
		if n <= 0 || len(m.plain)-first+lit+match > size {
			lit = min(lit, size-(len(m.plain)-first))
			b = append(b, byte(min(lit, 15)<<4))
			b = m.length(b, lit)
			return append(b, m.literals(lit)...)
		}
		if len(m.plain) == first {
			lit++
		}
		b = append(b, byte(min(lit, 15)<<4|min(match-4, 15)))
		b = m.length(b, lit)
		b = append(b, m.literals(lit)...)
		off := 1 + m.r.IntN(min(len(m.plain)-first, 65535))
		b = append(b, byte(off), byte(off>>8))
		b = m.length(b, match-4)
		for range match {
			m.plain = append(m.plain, m.plain[len(m.plain)-off])
		}
	}
}

func (m *maker) literals(n int) []byte {
	for range n {
		m.plain = append(m.plain, byte(m.r.Uint32()))
	}
	return m.plain[len(m.plain)-n:]
}

// TestMade splits blocks that no compressor makes.
func TestMade(t *testing.T) {
	seeds := uint64(30)
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		m := maker{r: rand.New(rand.NewPCG(seed, 1))}
		if b := m.block(2 << 20); !bytes.Equal(codec(true).Check(t, b).Plain, m.plain) {
			t.Error(seed, "other bytes")
		}
		m.plain = nil
		// Version 1, linked blocks, of 4 MiB, no checksums.
		frame := []byte{4, 0x22, 0x4d, 0x18, 0x40, 0x70, 0xdf}
		for range m.r.IntN(4) {
			b := m.block(4 << 20)
			if len(b) > 4<<20 {
				t.Fatal(len(b))
			}
			frame = binary.LittleEndian.AppendUint32(frame, uint32(len(b)))
			frame = append(frame, b...)
			if m.r.IntN(2) == 0 {
				k := m.r.IntN(600 << 10)
				frame = binary.LittleEndian.AppendUint32(frame, uint32(k)|1<<31)
				frame = append(frame, m.literals(k)...)
			}
		}
		frame = append(frame, 0, 0, 0, 0)
		if !bytes.Equal(codec(false).Check(t, frame).Plain, m.plain) {
			t.Error(seed, "other bytes")
		}
	}
}

// unit is what a parse has under one head.
type unit struct {
	kind, way byte
	plain     int // what its rows stand for; of what is told by expectation, as it says
	rows      [][3]int
}

// units reads the compressed blocks of a parse, in which blocks are sized or not.
func units(p []byte, sized bool) (all []unit) {
	for p = p[8:]; p[0] != 7; {
		u := unit{kind: p[0], way: p[1]}
		n := binary.LittleEndian.Uint32(p[4:])
		if p = p[8:]; sized && u.kind == 4 {
			p = p[8:]
		}
		if u.way > 0 {
			u.plain = int(binary.LittleEndian.Uint64(p))
			p = p[8:]
		}
		for ; n > 0; n-- {
			v := binary.LittleEndian.Uint64(p)
			r := [3]int{int(v&0xffff | v>>48&0xff<<16), int(v>>16&0xffff | v>>56<<16), int(v >> 32 & 0xffff)}
			if u.rows = append(u.rows, r); u.way == 0 {
				u.plain += r[0]
				if r[2] > 0 {
					u.plain += r[1]
				}
			}
			p = p[8:]
		}
		all = append(all, u)
	}
	return all
}

// TestUnits checks where blocks go on in another unit.
func TestUnits(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and of one goroutine")
	}
	more := 0
	for seed := range uint64(40) {
		m := maker{r: rand.New(rand.NewPCG(seed, 2))}
		b := m.block(2 << 20)
		if seed == 0 { // many rows
			b = append(bytes.Repeat([]byte{0x10, 'x', 1, 0, 0x10, 'x', 2, 0}, 20000), 0)
		}
		all := units(codec(true).Check(t, b).Parse, false)
		for i, u := range all {
			if u.way > 0 {
				continue
			}
			before := u.plain
			last := u.rows[len(u.rows)-1]
			if before -= last[0]; last[2] > 0 {
				before -= last[1]
			}
			if before > 256<<10 {
				t.Errorf("seed %d: a row behind %d bytes", seed, before)
			}
			if i+1 < len(all) && all[i+1].kind == 5 {
				if more++; u.plain <= 192<<10 && len(u.rows) <= 32766 {
					t.Errorf("seed %d: goes on behind %d rows, %d bytes", seed, len(u.rows), u.plain)
				}
			}
		}
	}
	if more < 10 {
		t.Errorf("only %d blocks go on", more)
	}
}

// TestExpected: of blocks that LZ4_compress_default made the parse says no more than that.
func TestExpected(t *testing.T) {
	want := []unit{{kind: 4, way: 2, plain: 5000, rows: [][3]int{{0, 17, 0}}}}
	for name, b := range parsetest.Goldens(t, "testdata/*.lz4") {
		if name != "plain.lz4" && name != "block6.lz4" {
			continue
		}
		if got := units(codec(false).Check(t, b).Parse, false); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	b := tool(t, parsetest.Sample(8, 3<<20), "-1", "-B7")
	rows := 0
	for _, u := range units(codec(false).Check(t, b).Parse, true) {
		if rows += len(u.rows); u.way == 0 {
			t.Errorf("a unit has %d rows", len(u.rows))
		}
	}
	if rows > 60 {
		t.Errorf("%d rows", rows)
	}
}

// TestExpectedBeyond: the literals that end a block may go on far behind a unit that is told by what is expected.
func TestExpectedBeyond(t *testing.T) {
	noise := make([]byte, 500<<10)
	rand.NewChaCha8([32]byte{5}).Read(noise)
	for n := 100 << 10; n < 300<<10; n += 30 << 10 {
		b := tool(t, append(parsetest.Sample(9, n), noise...), "-1", "-B7")
		if all := units(codec(false).Check(t, b).Parse, true); all[0].way == 0 {
			t.Errorf("%d bytes: the first unit has all its %d rows", n, len(all[0].rows))
		}
	}
}

// TestLegacyEnd finds the end of legacy frames whose last block is full.
func TestLegacyEnd(t *testing.T) {
	packed := tool(t, make([]byte, 16<<20), "-l")
	for name, tail := range map[string][]byte{
		"nothing": nil, "size": {0, 0, 0, 1}, "short": {9}, "zero": {0, 0, 0, 0}, "noise": []byte("\x09\x00\x00\x00something else"),
		"frame": {4, 0x22, 0x4d, 0x18}, "legacy": packed,
	} {
		if k := codec(false).Check(t, append(bytes.Clone(packed), tail...)); k.Packed != int64(len(packed)) {
			t.Errorf("%s: %d bytes, want %d", name, k.Packed, len(packed))
		}
	}
}

func TestRefused(t *testing.T) {
	golden := parsetest.Goldens(t, "testdata/plain.lz4")["plain.lz4"]
	change := func(at int, to byte) []byte {
		b := bytes.Clone(golden)
		b[(at+len(b))%len(b)] = to
		return b
	}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"empty":          {nil, lz4.ErrFormat},
		"magic":          {change(0, 5), lz4.ErrFormat},
		"version":        {change(4, 0x84), lz4.ErrFormat},
		"dictionary":     {change(4, golden[4]|1), lz4.ErrUnsupported},
		"reserved":       {change(4, golden[4]|2), lz4.ErrUnsupported},
		"block size":     {change(5, 0x30), lz4.ErrUnsupported},
		"header sum":     {change(6, golden[6]^1), lz4.ErrFormat},
		"block":          {change(10, 0x7f), lz4.ErrFormat},
		"content":        {change(15, golden[15]^0x20), lz4.ErrFormat},
		"content sum":    {change(-1, golden[len(golden)-1]^1), lz4.ErrFormat},
		"cut":            {golden[:len(golden)/2], lz4.ErrFormat},
		"cut sum":        {golden[:len(golden)-1], lz4.ErrFormat},
		"skippable":      {[]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, lz4.ErrFormat},
		"legacy":         {[]byte{2, 0x21, 0x4c, 0x18}, lz4.ErrFormat},
		"legacy, broken": {[]byte{2, 0x21, 0x4c, 0x18, 4, 0, 0, 0, 0x10, 'a', 2, 0}, lz4.ErrFormat},
		"token":          {[]byte{2, 0x21, 0x4c, 0x18, 2, 0, 0, 0, 0x11, 'a'}, lz4.ErrUnsupported},
		"no last":        {[]byte{2, 0x21, 0x4c, 0x18, 4, 0, 0, 0, 0x10, 'a', 1, 0}, lz4.ErrFormat},
	} {
		if _, err := codec(false).Take(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := lz4.SplitBlock(bytes.NewReader(nil), 0, 9<<20, nil, nil, nil); !errors.Is(err, lz4.ErrUnsupported) {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	codec(false).Errors(t, parsetest.Goldens(t, "testdata/plain.lz4")["plain.lz4"])
}

// TestCorrupt gives Join records that Split does not make.
func TestCorrupt(t *testing.T) {
	head := func(kind, a, b, c byte, n uint32) []byte {
		return binary.LittleEndian.AppendUint32([]byte{kind, a, b, c}, n)
	}
	row := func(lit, length, off uint16) []byte {
		b := binary.LittleEndian.AppendUint16(nil, lit)
		return append(binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, length), off), 0, 0)
	}
	size := func(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }
	frame, small := head(1, 0x60, 0x40, 0, 0), row(3, 0, 0)
	for name, parts := range map[string][][]byte{
		"expected, closed": {head(3, 0, 0, 0, 0), head(4, 1, 0, 0, 2), size(3), row(1, 0, 0), row(1, 4, 1)},
		"kind 0":           {head(0, 0, 0, 0, 0)},
		"kind 8":           {frame, head(8, 0, 0, 0, 0)},
		"fourth byte":      {head(1, 0x60, 0x40, 1, 0)},
		"block first":      {head(4, 0, 0, 0, 1), small},
		"frame twice":      {frame, frame},
		"flags":            {head(1, 0x61, 0x40, 0, 0), head(7, 0, 0, 0, 0)},
		"size unannounced": {head(1, 0x60, 0x40, 0, 1), make([]byte, 8), head(7, 0, 0, 0, 0)},
		"size missing":     {head(1, 0x68, 0x40, 0, 0), head(7, 0, 0, 0, 0)},
		"goes on, closed":  {frame, head(5, 0, 0, 0, 1), small},
		"end, open":        {frame, head(4, 0, 0, 0, 0), head(7, 0, 0, 0, 0)},
		"rows":             {frame, head(4, 0, 0, 0, 1<<15+1), make([]byte, 1<<19)},
		"behind the last":  {frame, head(4, 0, 0, 0, 2), small, small},
		"short match":      {frame, head(4, 0, 0, 0, 2), row(1, 3, 1), small},
		"long token":       {frame, head(4, 0, 0, 0, 2), row(1, 17, 0), small},
		"other token":      {frame, head(4, 0, 0, 0, 3), row(1, 3, 0), row(0, 7, 1), small},
		"token, literals":  {frame, head(4, 0, 0, 0, 3), row(1, 3, 0), row(1, 6, 1), small},
		"token, token":     {frame, head(4, 0, 0, 0, 3), row(1, 3, 0), row(0, 3, 0), small},
		"too much":         {frame, head(4, 0, 0, 0, 2), row(65535, 4, 1), small},
		"expands":          {frame, head(4, 0, 0, 0, 1), {0, 0, 0, 0, 0, 0, 1, 0}},
		"stored":           {frame, head(6, 0, 0, 0, 1<<16+1)},
		"stored, legacy":   {head(2, 0, 0, 0, 0), head(6, 0, 0, 0, 1)},
		"size":             {head(2, 0, 0, 0, 0), head(4, 0, 0, 0, 1), {5, 0, 0, 0, 0, 0, 0, 0}, small},
		"way":              {frame, head(4, 3, 0, 0, 1), make([]byte, 8), small},
		"way after rows":   {frame, head(4, 0, 0, 0, 0), head(5, 2, 0, 0, 1), size(3), small},
		"same, by rows":    {frame, head(4, 0, 0, 0, 2), row(1, 17, 0), small},
		"same, too many":   {frame, head(4, 2, 0, 0, 1), size(3), row(2, 17, 0)},
		"same, then more":  {frame, head(4, 2, 0, 0, 2), size(3), row(0, 17, 0), small},
		"same, goes on":    {frame, head(4, 1, 0, 0, 1), size(3), row(0, 17, 0)},
		"same, no end":     {frame, head(4, 1, 0, 0, 1), size(1000), row(0, 17, 0), head(5, 0, 0, 0, 1), small},
		"same, half":       {frame, head(4, 2, 0, 0, 3), size(1000), row(1, 6, 0), row(0, 17, 0), small},
		"rows too short":   {frame, head(4, 2, 0, 0, 1), size(4), small},
		"row too long":     {frame, head(4, 2, 0, 0, 1), size(2), small},
		"row beyond":       {frame, head(4, 1, 0, 0, 2), size(2), row(1, 9, 1), row(1, 9, 1), head(5, 0, 0, 0, 1), small},
		"not at the end":   {frame, head(4, 2, 0, 0, 1), size(12), row(3, 9, 1)},
		"unit":             {frame, head(4, 2, 0, 0, 1), size(1<<16 + 1), row(0, 17, 0)},
		"large unit":       {head(3, 0, 0, 0, 0), head(4, 2, 0, 0, 1), size(256<<10 + 1), row(0, 17, 0)},
		"large size":       {head(2, 0, 0, 0, 0), head(4, 0, 0, 0, 1), {0, 0, 0, 0, 1, 0, 0, 0}, small},
	} {
		parse := bytes.Join(append(parts, head(7, 0, 0, 0, 0)), nil)
		if err := lz4.Join(io.Discard, bytes.NewReader(make([]byte, 1<<20)), bytes.NewReader(parse)); !errors.Is(err, lz4.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var out bytes.Buffer
	ok := bytes.Join([][]byte{frame, head(4, 0, 0, 0, 3), row(1, 3, 0), row(0, 6, 1), small, head(7, 0, 0, 0, 0)}, nil)
	if err := lz4.Join(&out, bytes.NewReader(make([]byte, 10)), bytes.NewReader(ok)); err != nil || out.Len() != 7+4+8+4 {
		t.Error(out.Len(), err)
	}
}
