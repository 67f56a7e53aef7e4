package xz_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"updraft/delta/patch/internal/parse/parsetest"
	"updraft/delta/patch/internal/xz"
)

func golden(t testing.TB, name string) []byte {
	t.Helper()
	return parsetest.Goldens(t, "testdata/"+name+".xz")[name+".xz"]
}

// TestGolden splits streams of xz 5.4.1; they all hold parsetest.Sample(1, 5000), some filtered.
func TestGolden(t *testing.T) {
	for name, b := range parsetest.Goldens(t, "testdata/*.xz") {
		k := codec.Check(t, b)
		filtered := name == "x86.xz" || name == "delta.xz"
		if len(k.Plain) != 5000 || !filtered && !bytes.Equal(k.Plain, parsetest.Sample(1, 5000)) {
			t.Errorf("%s: other bytes", name)
		}
	}
}

// TestSquashfs splits what is in an image: blocks that are streams of their own.
func TestSquashfs(t *testing.T) {
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		t.Skip("no program mksquashfs to make an image with: ", err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "in"), 0o755); err != nil {
		t.Fatal(err)
	}
	plain := parsetest.Sample(9, 300<<10)
	if err := os.WriteFile(filepath.Join(dir, "in", "file"), plain, 0o644); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "image")
	if out, err := exec.Command("mksquashfs", filepath.Join(dir, "in"), image, "-comp", "xz", "-quiet", "-no-progress").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for i := bytes.Index(b, []byte("\xfd7zXZ\x00")); i >= 0; {
		k := codec.Check(t, b[i:])
		got = append(got, k.Plain...)
		b = b[i+int(k.Packed):]
		i = bytes.Index(b, []byte("\xfd7zXZ\x00"))
	}
	if !bytes.HasPrefix(got, plain) {
		t.Errorf("%d bytes, other ones", len(got))
	}
}

// TestRows pins the parse.
func TestRows(t *testing.T) {
	k := codec.Check(t, tool(t, []byte("abcabcabcabcXabcabcY"), "-C", "crc32"))
	want := []byte{
		1, 1, 0, 0, 0, 0, 0, 0,
		2, 2, 0, 0, 3, 0, 0, 0,
		0x21, 1, 0x16, 0, 0, 0, 0, 0,
		3, 3, 0x5d, 0, 3, 0, 0, 0,
		20, 0, 0, 0, 0, 0, 0, 0,
		3, 0, 1, 0, 0, 0, 0, 0,
		1, 0, 1, 0, 0, 0, 0, 0,
		1, 0, 0, 0, 0, 0, 0, 0,
		6, 0, 0, 0, 0, 0, 0, 0,
		7, 0, 0, 0, 0, 0, 0, 0,
	}
	if !bytes.Equal(k.Parse, want) {
		t.Errorf("parse\n% x, want\n% x", k.Parse, want)
	}
}

// TestUnits checks where chunks go on in another unit.
func TestUnits(t *testing.T) {
	more := 0
	b := append(bytes.Repeat([]byte("a"), 300<<10), parsetest.Sample(9, 400<<10)...)
	for _, arg := range []string{"-0", "-9"} {
		for p := codec.Check(t, tool(t, b, arg)).Parse; p[0] != 7; {
			kind, n := p[0], binary.LittleEndian.Uint32(p[4:])
			switch p = p[8:]; kind {
			case 2:
				p = p[(n+7)/8*8:] // without sizes
			case 3, 4:
				plain := binary.LittleEndian.Uint64(p)
				if p = p[8+8*n:]; p[0] != 4 {
					continue
				}
				if more++; n != 24576 && plain <= 134896 || n > 24576 || plain > 139264 {
					t.Errorf("goes on behind %d rows, %d bytes", n, plain)
				}
			}
		}
	}
	if more < 4 {
		t.Errorf("only %d chunks go on", more)
	}
}

// TestFar: of bytes that Join does not keep the parse has those that it needs.
func TestFar(t *testing.T) {
	far := parsetest.Sample(1, 200<<10)
	b := append(append(bytes.Clone(far), noise(600<<10)...), far...)
	for i := len(b) - len(far); i < len(b); i += 1000 {
		b[i] ^= 1
	}
	k := codec.Check(t, tool(t, b, "-6"))
	n := 0
	for p := k.Parse; len(p) > 0; p = p[8:] {
		if p[3] != 0 {
			n++
		}
	}
	if n < 50 {
		t.Errorf("%d bytes in the parse", n)
	}
}

// fixed returns b with bytes from at changed to v, and a new CRC of the n bytes at from
// behind them.
func fixed(b []byte, at int, v byte, from, n int) []byte {
	b = bytes.Clone(b)
	b[(at+len(b))%len(b)] = v
	binary.LittleEndian.PutUint32(b[from+n:], crc32.ChecksumIEEE(b[from:from+n]))
	return b
}

func TestRefused(t *testing.T) {
	b := golden(t, "crc64")
	// The stream's header has 12 bytes: 6 magic, 2 flags, 4 CRC. The block's has also 12:
	// size 2, flags 0, filter 21 01 16, padding 00 00 00, CRC; then comes the first chunk.
	change := func(at int, to byte) []byte {
		b := bytes.Clone(b)
		b[(at+len(b))%len(b)] = to
		return b
	}
	block := func(at int, to byte) []byte { return fixed(b, at, to, 12, 8) }
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"empty":          {nil, xz.ErrFormat},
		"magic":          {change(0, 5), xz.ErrFormat},
		"header crc":     {change(8, b[8]^1), xz.ErrFormat},
		"stream flags":   {fixed(b, 6, 1, 6, 2), xz.ErrUnsupported},
		"check":          {fixed(b, 7, 2, 6, 2), xz.ErrUnsupported},
		"other check":    {fixed(b, 7, 1, 6, 2), xz.ErrFormat},
		"block crc":      {change(13, 1), xz.ErrFormat},
		"block flags":    {block(13, 4), xz.ErrUnsupported},
		"two filters":    {block(13, 1), xz.ErrUnsupported},
		"filter":         {block(14, 0x22), xz.ErrUnsupported},
		"properties":     {block(15, 2), xz.ErrUnsupported},
		"many":           {block(15, 100), xz.ErrUnsupported},
		"dictionary":     {block(16, 41), xz.ErrFormat},
		"padding":        {block(18, 1), xz.ErrUnsupported},
		"control":        {change(24, 3), xz.ErrFormat},
		"not fresh":      {change(24, 2), xz.ErrFormat},
		"no properties":  {change(24, 0xa0), xz.ErrFormat},
		"lc, lp":         {change(29, 44), xz.ErrFormat},
		"first byte":     {change(30, 1), xz.ErrFormat},
		"too short":      {change(26, b[26]-1), xz.ErrUnsupported},
		"too long":       {change(26, b[26]+1), xz.ErrFormat},
		"packed":         {change(28, b[28]-1), xz.ErrFormat},
		"content":        {change(100, b[100]^1), xz.ErrFormat},
		"index":          {change(-18, b[len(b)-18]^1), xz.ErrFormat},
		"footer":         {change(-1, 'y'), xz.ErrFormat},
		"cut":            {b[:len(b)/2], xz.ErrFormat},
		"without footer": {b[:len(b)-12], xz.ErrFormat},
		"two mebibytes":  {bytes.Repeat([]byte{0xfd}, 2<<20), xz.ErrFormat},
	} {
		if _, err := codec.Take(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := xz.Split(bytes.NewReader(b), 0, 1<<40, nil, nil, nil); !errors.Is(err, xz.ErrFormat) {
		t.Error("source ends early: ", err)
	}
}

// TestWindow: how far back matches reach counts, not the size of the dictionary.
func TestWindow(t *testing.T) {
	if testing.Short() {
		t.Skip("packs 9 MiB")
	}
	b := make([]byte, 9<<20)
	codec.Check(t, tool(t, b, "-0", "--lzma2=preset=0,dict=64MiB"))
	copy(b, parsetest.Sample(1, 10000))
	copy(b[len(b)-10000:], parsetest.Sample(1, 10000))
	if _, err := codec.Take(tool(t, b, "--lzma2=preset=1,dict=64MiB")); !errors.Is(err, xz.ErrUnsupported) {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) { codec.Errors(t, golden(t, "sha256")) }

// TestCorrupt gives Join records that Split does not make.
func TestCorrupt(t *testing.T) {
	head := func(kind, a, b, c byte, n uint32) []byte {
		return binary.LittleEndian.AppendUint32([]byte{kind, a, b, c}, n)
	}
	row := func(lit, length, flags byte, distance uint32) []byte {
		return binary.LittleEndian.AppendUint32([]byte{lit, length, flags, 0}, distance)
	}
	stream, end := head(1, 1, 0, 0, 0), append(head(6, 0, 0, 0, 0), head(7, 0, 0, 0, 0)...)
	block := append(head(2, 2, 0, 0, 3), 0x21, 1, 0x16, 0, 0, 0, 0, 0)
	one := row(1, 0, 0, 0)
	// rows is a head, the number of plain bytes, and rows.
	rows := func(h []byte, plain uint64, rows ...[]byte) []byte {
		return append(binary.LittleEndian.AppendUint64(h, plain), bytes.Join(rows, nil)...)
	}
	chunk := func(plain uint64, all ...[]byte) []byte {
		return rows(head(3, 3, 0x5d, 0, uint32(len(all))), plain, all...)
	}
	zeros := slices.Repeat([][]byte{row(0, 0, 2, 0)}, 400) // as a rep, the longest match
	for name, parts := range map[string][][]byte{
		"kind 0":            {head(0, 0, 0, 0, 0)},
		"kind 8":            {stream, head(8, 0, 0, 0, 0)},
		"fourth byte":       {head(1, 1, 0, 1, 0)},
		"check":             {head(1, 2, 0, 0, 0), end[8:]},
		"block first":       {block, end},
		"stream twice":      {stream, stream, end[8:]},
		"block in block":    {stream, block, block, end},
		"end in block":      {stream, block, end[8:]},
		"end of no block":   {stream, end},
		"chunk, no block":   {stream, chunk(1, one), end},
		"stored, no block":  {stream, head(5, 1, 0, 0, 1), end},
		"goes on, no chunk": {stream, block, rows(head(4, 0, 0, 0, 1), 1, one), end},
		"goes on, stored":   {stream, block, head(5, 1, 0, 0, 1), rows(head(4, 0, 0, 0, 1), 1, one), end},
		"header size 0":     {stream, head(2, 0, 0, 0, 0), end},
		"header too small":  {stream, head(2, 1, 0, 0, 3), block[8:], end},
		"many filters":      {stream, head(2, 255, 0, 0, 1025), make([]byte, 2000), end},
		"negative size":     {stream, head(2, 9, 0x40, 0, 3), bytes.Repeat([]byte{255}, 8), block[8:], end},
		"check, unfiltered": {stream, block, head(6, 0, 0, 0, 4), end},
		"reset":             {stream, block, rows(head(3, 4, 0x5d, 0, 1), 1, one), end},
		"properties":        {stream, block, rows(head(3, 3, 225, 0, 1), 1, one), end},
		"lc + lp":           {stream, block, rows(head(3, 3, 44, 0, 1), 1, one), end},
		"no properties":     {stream, block, rows(head(3, 1, 0, 0, 1), 1, one), end},
		"spare properties":  {stream, block, chunk(1, one), rows(head(3, 0, 1, 0, 1), 1, one), end},
		"empty chunk":       {stream, block, chunk(0), end},
		"rows":              {stream, block, rows(head(3, 3, 0x5d, 0, 24<<10+1), 24<<10+1, make([]byte, 1<<19)), end},
		"row of kind 7":     {stream, block, chunk(2, row(1, 0, 7, 0)), end},
		"row beyond":        {stream, block, chunk(2, row(3, 0, 0, 0)), end},
		"match at the end":  {stream, block, chunk(1, row(1, 0, 2, 0)), end},
		"bytes without row": {stream, block, chunk(3, one), end},
		"nothing near":      {stream, block, chunk(9, row(0, 0, 1, 0)), end},
		"none so long":      {stream, block, chunk(9, row(1, 7, 1, 0)), end},
		"none at all":       {stream, block, chunk(9, row(1, 7, 1, 1)), end},
		"none repeated":     {stream, block, chunk(9, row(1, 7, 2, 0)), end},
		"match from before": {stream, block, chunk(9, row(1, 0, 1, 99)), end},
		"far from before":   {stream, block, chunk(9, row(1, 0, 1, 1<<20)), end},
		"unit":              {stream, block, chunk(136<<10+1, row(1, 0, 0, 0)), end},
		"large unit":        {stream, block, chunk(1<<62, row(1, 0, 0, 0)), end},
		"chunk":             {stream, block, chunk(1, one), bytes.Repeat(rows(head(4, 0, 0, 0, 400), 400*273, zeros...), 20), end},
		"stored of 0":       {stream, block, head(5, 1, 0, 0, 0), end},
		"stored":            {stream, block, head(5, 1, 0, 0, 1<<16+1), end},
		"stored control":    {stream, block, head(5, 3, 0, 0, 1), end},
	} {
		parse := bytes.Join(parts, nil)
		if err := xz.Join(io.Discard, bytes.NewReader(make([]byte, 4<<20)), bytes.NewReader(parse)); !errors.Is(err, xz.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var out bytes.Buffer
	parse := bytes.Join([][]byte{stream, block, chunk(275, row(1, 0, 1, 0), one), end}, nil)
	plain := make([]byte, 275)
	if err := xz.Join(&out, bytes.NewReader(plain), bytes.NewReader(parse)); err != nil {
		t.Fatal(err)
	}
	if k := codec.Check(t, out.Bytes()); !bytes.Equal(k.Plain, plain) || !bytes.Equal(k.Parse, parse) {
		t.Errorf("comes back as % x", k.Parse)
	}
}

// TestExpanding: noise as literals does not fit into a chunk.
func TestExpanding(t *testing.T) {
	parse := []byte{1, 0, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0, 3, 0, 0, 0, 0x21, 1, 0x16, 0, 0, 0, 0, 0, 3, 3, 0x5d, 0, 17, 0, 0, 0}
	parse = binary.LittleEndian.AppendUint64(parse, 17*4095)
	for range 17 {
		parse = append(parse, 0xff, 0, 0xf0, 0, 0, 0, 0, 0)
	}
	parse = append(parse, 6, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0)
	if err := xz.Join(io.Discard, bytes.NewReader(noise(17*4095)), bytes.NewReader(parse)); !errors.Is(err, xz.ErrCorrupt) {
		t.Error(err)
	}
	if err := xz.Join(io.Discard, bytes.NewReader(make([]byte, 17*4095)), bytes.NewReader(parse)); err != nil {
		t.Error(err)
	}
}

// TestManyBlocks: empty blocks end units too, and there is a limit.
func TestManyBlocks(t *testing.T) {
	// An empty block is its header, the end of chunks, padding and no check.
	stream := func(n int) []byte {
		parse := []byte{1, 0, 0, 0, 0, 0, 0, 0}
		for range n {
			parse = append(parse, 2, 2, 0, 0, 3, 0, 0, 0, 0x21, 1, 0x16, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0)
		}
		var out bytes.Buffer
		if err := xz.Join(&out, bytes.NewReader(nil), bytes.NewReader(append(parse, 7, 0, 0, 0, 0, 0, 0, 0))); err != nil {
			t.Log(err)
			return nil
		}
		return out.Bytes()
	}
	if k := codec.Check(t, stream(2048)); len(k.Units) < 2 || len(k.Plain) > 0 {
		t.Errorf("%d units, %d bytes", len(k.Units), len(k.Plain))
	}
	if b := stream(2049); b != nil {
		t.Errorf("%d bytes", len(b))
	}
}
