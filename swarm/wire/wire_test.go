package wire_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"updraft/swarm/wire"
)

func id(b byte) (x [32]byte) {
	for i := range x {
		x[i] = b
	}
	return x
}

// vectors are one frame of each type, as they stand in testdata/vectors.txt.
func vectors() map[string][]byte {
	rank := wire.Rank{Gateway: true, Link: 1, Reach: 2, Up: 77}
	return map[string][]byte{
		"hello":        wire.AppendHello(nil, wire.Hello{Version: 1, Features: 5, Instance: 0x0102030405060708, Credential: []byte("cred")}),
		"verdict":      wire.AppendVerdict(nil, wire.Duplicate),
		"profile":      wire.AppendProfile(nil, wire.Profile{Rank: rank, Node: []byte("node")}),
		"interest":     wire.AppendInterest(nil, wire.Interest{ID: id(1), Count: 11, Flags: wire.FlagReceive, Bits: []byte{0xff, 0x05}}),
		"interest-all": wire.AppendInterest(nil, wire.Interest{ID: id(2), Count: 65536, Flags: wire.FlagProduce | wire.FlagAll}),
		"retract":      wire.AppendRetract(nil, id(3)),
		"have":         wire.AppendIndexes(nil, wire.TypeHave, id(4), []uint32{0, 1, 5, 300, 65535}),
		"get":          wire.AppendIndexes(nil, wire.TypeGet, id(4), []uint32{7}),
		"lease":        wire.AppendLease(nil, wire.Lease{Kind: wire.LeaseObject, Epoch: 9, Rank: rank, Holder: "peer"}),
		"blob-header":  wire.AppendBlobHeader(nil, wire.BlobHeader{ID: id(5), Index: 3, Len: 1 << 20, Flags: wire.BlobRelay}),
		"blob-packed":  wire.AppendBlobHeader(nil, wire.BlobHeader{ID: id(5), Index: 3, Len: 1 << 20, Flags: wire.BlobAsked, Packed: 77}),
		"rumor":        wire.AppendRumor(nil, wire.Rumor{Kind: wire.LeaseHeartbeat, Epoch: 9, Rank: rank, Number: 4, Holder: "peer"}),
		"request":      wire.AppendRequest(nil, "name", []byte("arg")),
		"answer":       wire.AppendAnswer(nil, wire.StatusError, []byte("text")),
	}
}

// TestVectors pins the bytes: a change here is another version of the protocol.
func TestVectors(t *testing.T) {
	raw, err := os.ReadFile("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 2 {
			want[f[0]] = f[1]
		}
	}
	got := vectors()
	if len(got) != len(want) {
		t.Errorf("%d vectors, file has %d", len(got), len(want))
	}
	for name, b := range got {
		if hex.EncodeToString(b) != want[name] {
			t.Errorf("%s %x", name, b)
		}
	}
}

func body(t *testing.T, frame []byte) (wire.Type, []byte) {
	t.Helper()
	typ, b, err := wire.ReadFrame(bufio.NewReader(bytes.NewReader(frame)), wire.MaxFrame, nil)
	if err != nil {
		t.Fatal(err)
	}
	return typ, b
}

func TestRoundTrips(t *testing.T) {
	v := vectors()
	if typ, b := body(t, v["hello"]); typ != wire.TypeHello {
		t.Error(typ)
	} else if h, err := wire.ParseHello(b); err != nil || h.Instance != 0x0102030405060708 || h.Features != 5 || string(h.Credential) != "cred" {
		t.Error(h, err)
	}
	if _, b := body(t, v["verdict"]); len(b) != 1 {
		t.Error(b)
	} else if x, err := wire.ParseVerdict(b); err != nil || x != wire.Duplicate {
		t.Error(x, err)
	}
	_, b := body(t, v["profile"])
	if p, err := wire.ParseProfile(b); err != nil || p.Rank.Up != 77 || !p.Rank.Gateway || p.Rank.Link != 1 || string(p.Node) != "node" {
		t.Error(p, err)
	}
	_, b = body(t, v["interest"])
	if m, err := wire.ParseInterest(b); err != nil || m.Count != 11 || !bytes.Equal(m.Bits, []byte{0xff, 5}) || m.ID != id(1) {
		t.Error(m, err)
	}
	_, b = body(t, v["interest-all"])
	if m, err := wire.ParseInterest(b); err != nil || m.Count != 65536 || m.Bits != nil {
		t.Error(m, err)
	}
	_, b = body(t, v["retract"])
	if x, err := wire.ParseRetract(b); err != nil || x != id(3) {
		t.Error(x, err)
	}
	_, b = body(t, v["have"])
	if x, l, err := wire.ParseIndexes(b, nil); err != nil || x != id(4) || !slices.Equal(l, []uint32{0, 1, 5, 300, 65535}) {
		t.Error(x, l, err)
	}
	_, b = body(t, v["lease"])
	if m, err := wire.ParseLease(b); err != nil || m.Epoch != 9 || m.Holder != "peer" || m.Kind != wire.LeaseObject {
		t.Error(m, err)
	}
	_, b = body(t, v["rumor"])
	if m, err := wire.ParseRumor(b); err != nil || m.Epoch != 9 || m.Holder != "peer" || m.Kind != wire.LeaseHeartbeat || m.Number != 4 || m.Rank != (wire.Rank{Gateway: true, Link: 1, Reach: 2, Up: 77}) {
		t.Error(m, err)
	}
	if h, n, err := wire.ParseBlobHeader(v["blob-header"]); err != nil || n != 41 || h.Len != 1<<20 || h.Index != 3 || h.Flags != wire.BlobRelay || h.Follows() != 1<<20 {
		t.Error(h, err)
	}
	if h, n, err := wire.ParseBlobHeader(v["blob-packed"]); err != nil || n != 45 || h.Len != 1<<20 || h.Flags != wire.BlobAsked|wire.BlobPacked || h.Follows() != 77 {
		t.Error(h, err)
	}
	if n, a, err := wire.ReadRequest(bytes.NewReader(v["request"])); err != nil || n != "name" || string(a) != "arg" {
		t.Error(n, a, err)
	}
	if s, a, err := wire.ReadAnswer(bytes.NewReader(v["answer"]), 4); err != nil || s != wire.StatusError || string(a) != "text" {
		t.Error(s, a, err)
	}
}

func TestFramesAreBounded(t *testing.T) {
	read := func(b []byte, limit int) error {
		_, _, err := wire.ReadFrame(bufio.NewReader(bytes.NewReader(b)), limit, nil)
		return err
	}
	for _, x := range []struct {
		name string
		b    []byte
		want error
	}{
		{"end between frames", nil, io.EOF},
		{"end in a length", []byte{0x80}, io.ErrUnexpectedEOF},
		{"end in a body", []byte{5, 1, 2}, io.ErrUnexpectedEOF},
		{"empty", []byte{0}, wire.ErrMalformed},
		{"above the limit", []byte{0xff, 0x7f}, wire.ErrTooLarge},
		{"length of five bytes", []byte{0x81, 0x80, 0x80, 0x80, 1}, wire.ErrMalformed},
		{"length not in its shortest form", []byte{0x81, 0x00, 1}, wire.ErrMalformed},
	} {
		if err := read(x.b, 100); !errors.Is(err, x.want) {
			t.Errorf("%s: %v", x.name, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	head := func(n int, rest ...byte) []byte { return append(make([]byte, n), rest...) }
	interest := func(count byte, flags byte, bits ...byte) []byte {
		return append(append(make([]byte, 32), count, 0, 0, 0, flags), bits...)
	}
	parse := map[string]func([]byte) error{
		"hello":    func(b []byte) error { _, err := wire.ParseHello(b); return err },
		"verdict":  func(b []byte) error { _, err := wire.ParseVerdict(b); return err },
		"profile":  func(b []byte) error { _, err := wire.ParseProfile(b); return err },
		"interest": func(b []byte) error { _, err := wire.ParseInterest(b); return err },
		"retract":  func(b []byte) error { _, err := wire.ParseRetract(b); return err },
		"indexes":  func(b []byte) error { _, _, err := wire.ParseIndexes(b, nil); return err },
		"lease":    func(b []byte) error { _, err := wire.ParseLease(b); return err },
		"header":   func(b []byte) error { _, _, err := wire.ParseBlobHeader(b); return err },
		"rumor":    func(b []byte) error { _, err := wire.ParseRumor(b); return err },
		"request":  func(b []byte) error { _, _, err := wire.ReadRequest(bytes.NewReader(b)); return err },
		"answer":   func(b []byte) error { _, _, err := wire.ReadAnswer(bytes.NewReader(b), 10); return err },
	}
	for _, x := range []struct {
		what, why string
		b         []byte
	}{
		{"hello", "short", head(16)},
		{"hello", "large credential", head(17 + wire.MaxCredential + 1)},
		{"verdict", "unknown", []byte{9}},
		{"profile", "short", head(5)},
		{"profile", "large", head(6 + wire.MaxProfile + 1)},
		{"profile", "gateway is 2", []byte{2, 0, 0, 0, 0, 0}},
		{"interest", "no blobs", interest(0, 0)},
		{"interest", "short bitmap", interest(9, 0, 1)},
		{"interest", "long bitmap", interest(8, 0, 1, 0)},
		{"interest", "bits past the end", interest(7, 0, 0x80)},
		{"interest", "all and a bitmap", interest(8, wire.FlagAll, 1)},
		{"interest", "unknown flag", interest(8, 8, 1)},
		{"retract", "short", head(31)},
		{"indexes", "none", head(32)},
		{"indexes", "long form", head(32, 0x80, 0)},
		{"indexes", "too high", head(32, 0xff, 0xff, 3, 0)},
		{"lease", "short", head(14)},
		{"lease", "unknown kind", append([]byte{8}, make([]byte, 14)...)},
		{"lease", "long holder", append([]byte{1}, make([]byte, 14+65)...)},
		{"rumor", "no holder", append([]byte{4}, make([]byte, 18)...)},
		{"rumor", "of a claim", append([]byte{3}, make([]byte, 19)...)},
		{"rumor", "long holder", append([]byte{4}, make([]byte, 18+65)...)},
		{"header", "short", head(40)},
		{"header", "empty blob", head(41)},
		{"header", "unknown flag", append(make([]byte, 36), 1, 0, 0, 0, 8)},
		{"header", "packed without a length", append(make([]byte, 36), 9, 0, 0, 0, 4)},
		{"header", "packed into nothing", append(make([]byte, 36), 9, 0, 0, 0, 4, 0, 0, 0, 0)},
		{"header", "packed and not smaller", append(make([]byte, 36), 9, 0, 0, 0, 4, 9, 0, 0, 0)},
		{"header", "large blob", append(make([]byte, 36), 1, 0, 16, 0, 0)},
		{"request", "no name", head(6)},
		{"request", "large argument", []byte{1, 0, 0, 0, 2, 0, 'x'}},
		{"answer", "unknown status", []byte{9, 0, 0, 0, 0}},
		{"answer", "above the limit", []byte{0, 11, 0, 0, 0}},
	} {
		if err := parse[x.what](x.b); err == nil {
			t.Errorf("%s, %s: accepted", x.what, x.why)
		}
	}
}

// FuzzFrame reads frames until the input ends; what is accepted must come back as the same bytes.
func FuzzFrame(f *testing.F) {
	for _, v := range vectors() {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			typ, p, err := wire.ReadFrame(r, wire.MaxFrame, nil)
			if err != nil {
				return
			}
			again := reencode(typ, p)
			if again != nil && !bytes.Equal(again, wire.AppendFrame(nil, typ, p)) {
				t.Fatalf("type %d: %x became %x", typ, p, again)
			}
		}
	})
}

// reencode decodes a body and encodes it again; nil when it is refused or of an unknown type.
func reencode(typ wire.Type, p []byte) []byte {
	switch typ {
	case wire.TypeHello:
		if h, err := wire.ParseHello(p); err == nil {
			return wire.AppendHello(nil, h)
		}
	case wire.TypeAdmit:
		if v, err := wire.ParseVerdict(p); err == nil {
			return wire.AppendVerdict(nil, v)
		}
	case wire.TypeProfile:
		if m, err := wire.ParseProfile(p); err == nil {
			return wire.AppendProfile(nil, m)
		}
	case wire.TypeInterest:
		if m, err := wire.ParseInterest(p); err == nil {
			return wire.AppendInterest(nil, m)
		}
	case wire.TypeRetract:
		if id, err := wire.ParseRetract(p); err == nil {
			return wire.AppendRetract(nil, id)
		}
	case wire.TypeHave, wire.TypeGet, wire.TypeCancel, wire.TypeNack:
		if id, l, err := wire.ParseIndexes(p, nil); err == nil {
			return wire.AppendIndexes(nil, typ, id, l)
		}
	case wire.TypeRumor:
		if m, err := wire.ParseRumor(p); err == nil {
			return wire.AppendRumor(nil, m)
		}
	case wire.TypeLease:
		if m, err := wire.ParseLease(p); err == nil {
			return wire.AppendLease(nil, m)
		}
	}
	return nil
}

// FuzzStream feeds the decoders of the other streams.
func FuzzStream(f *testing.F) {
	for _, v := range vectors() {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := wire.ParseBlobHeader(b)
		if err == nil && !bytes.Equal(wire.AppendBlobHeader(nil, h), b[:n]) {
			t.Fatalf("blob header %x", b)
		}
		r := bufio.NewReader(bytes.NewReader(b))
		if again, err2 := wire.ReadBlobHeader(r); (err == nil) != (err2 == nil) || err == nil && again != h {
			t.Fatalf("blob header %x: %v and %v", b, err, err2)
		}
		if n, a, err := wire.ReadRequest(bytes.NewReader(b)); err == nil && !bytes.HasPrefix(b, wire.AppendRequest(nil, n, a)) {
			t.Fatalf("request %x", b)
		}
		if s, a, err := wire.ReadAnswer(bytes.NewReader(b), wire.MaxAnswer); err == nil && !bytes.HasPrefix(b, wire.AppendAnswer(nil, s, a)) {
			t.Fatalf("answer %x", b)
		}
	})
}

func TestReadBlobHeader(t *testing.T) {
	v := vectors()
	both := append(bytes.Clone(v["blob-packed"]), v["blob-header"]...)
	r := bufio.NewReader(bytes.NewReader(both))
	if h, err := wire.ReadBlobHeader(r); err != nil || h.Packed != 77 {
		t.Error(h, err)
	}
	if h, err := wire.ReadBlobHeader(r); err != nil || h.Packed != 0 || h.Len != 1<<20 {
		t.Error(h, err)
	}
	if _, err := wire.ReadBlobHeader(r); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	for _, n := range []int{1, 40, 41, 44} {
		if _, err := wire.ReadBlobHeader(bufio.NewReader(bytes.NewReader(v["blob-packed"][:n]))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// TestErrorsAreShort: what a member says in an answer that is an error is kept, shown and logged.
func TestErrorsAreShort(t *testing.T) {
	for n, want := range map[int]error{wire.MaxError: nil, wire.MaxError + 1: wire.ErrTooLarge, wire.MaxAnswer: wire.ErrTooLarge} {
		if _, _, err := wire.ReadAnswer(bytes.NewReader(wire.AppendAnswer(nil, wire.StatusError, make([]byte, n))), wire.MaxAnswer); !errors.Is(err, want) {
			t.Errorf("an error of %d bytes: %v, want %v", n, err, want)
		}
	}
}
