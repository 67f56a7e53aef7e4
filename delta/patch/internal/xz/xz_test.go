package xz_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"updraft/delta/patch/internal/xz"
)

// sample returns n bytes: words, runs, noise, and repetitions from far back.
func sample(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	var b []byte
	for len(b) < n {
		switch k := r.IntN(40); {
		case k == 0:
			b = append(b, make([]byte, r.IntN(3000))...)
		case k == 1:
			for range r.IntN(600) {
				b = append(b, byte(r.Uint32()))
			}
		case k < 6 && len(b) > 0:
			from := r.IntN(len(b))
			b = append(b, b[from:from+min(r.IntN(400), len(b)-from)]...)
		default:
			b = append(b, "some of these words come again and again: "[r.IntN(30):]...)
		}
	}
	return b[:n]
}

// taken is what Split made of a frame, in units.
type taken struct {
	plain, parse []byte
	units        [][2]int // plain bytes and parse at the end of each unit
	packed       int64
}

func split(b []byte) (taken, error) {
	var plain, parse bytes.Buffer
	var t taken
	unit := func() error {
		t.units = append(t.units, [2]int{plain.Len(), parse.Len()})
		return nil
	}
	var err error
	t.packed, err = xz.Split(bytes.NewReader(b), 0, int64(len(b)), &plain, &parse, unit)
	t.plain, t.parse = plain.Bytes(), parse.Bytes()
	return t, err
}

// turns checks that Join reads unit by unit: the parse of one, then its plain bytes.
type turns struct {
	t           *taken
	plain, used int
	ahead       bool
}

type turnPlain struct{ *turns }
type turnParse struct{ *turns }

func (r turnParse) Read(p []byte) (int, error) {
	n := copy(p, r.t.parse[r.used:])
	if n == 0 {
		return 0, io.EOF
	}
	r.used += n
	for i, u := range r.t.units {
		if i > 0 && r.used > r.t.units[i-1][1] && r.plain < r.t.units[i-1][0] && u[1] > 0 {
			r.ahead = true
		}
	}
	return n, nil
}

func (r turnPlain) Read(p []byte) (int, error) {
	n := copy(p, r.t.plain[r.plain:])
	if n == 0 {
		return 0, io.EOF
	}
	r.plain += n
	for i, u := range r.t.units {
		if i > 0 && r.plain > r.t.units[i-1][0] && r.used < u[1] {
			r.ahead = true
		}
	}
	return n, nil
}

// check splits b, which begins with a frame, joins it, and returns what is between.
func check(t *testing.T, b []byte) taken {
	t.Helper()
	k, err := split(b)
	if err != nil {
		t.Fatalf("split: %v", err)
	}
	if len(k.parse)%8 != 0 {
		t.Errorf("%d bytes of parse", len(k.parse))
	}
	last := [2]int{}
	for _, u := range k.units {
		if u[0]-last[0] > 256<<10 || u[1]-last[1] > 257<<10 {
			t.Errorf("unit of %d, %d bytes of parse", u[0]-last[0], u[1]-last[1])
		}
		last = u
	}
	if last != [2]int{len(k.plain), len(k.parse)} {
		t.Errorf("last unit ends at %v of %d, %d", last, len(k.plain), len(k.parse))
	}
	var out bytes.Buffer
	order := &turns{t: &k}
	if err := xz.Join(&out, turnPlain{order}, turnParse{order}); err != nil {
		t.Fatalf("join: %v", err)
	}
	if !bytes.Equal(out.Bytes(), b[:k.packed]) {
		t.Fatalf("joined %d bytes to others, want %d", out.Len(), k.packed)
	}
	if order.ahead || order.plain != len(k.plain) || order.used != len(k.parse) {
		t.Errorf("read ahead: %v; %d of %d, %d of %d", order.ahead, order.plain, len(k.plain), order.used, len(k.parse))
	}
	return k
}

// tool runs the xz program on b.
func tool(t testing.TB, b []byte, arg ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("no program xz to make streams with: ", err)
	}
	cmd := exec.Command("xz", append(arg, "-c", "-q")...)
	cmd.Stdin = bytes.NewReader(b)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("xz %v: %v", arg, err)
	}
	return out.Bytes()
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{2}).Read(b)
	return b
}

var toolArgs = []string{
	"-0", "-1", "-3", "-6", "-9e", "-T2 --block-size=100KiB", "-C none --block-size=300KiB", "-C crc32 --lzma2=dict=1MiB", "-C sha256 -2",
	"--x86 --lzma2 -C crc32", "--delta=dist=4 --arm64 --lzma2", "--lzma2=lc=0,lp=2,pb=0", "--lzma2=lc=4,pb=4,mode=fast,nice=5", "--lzma2=lc=1,lp=3,mf=bt2",
}

func TestTool(t *testing.T) {
	inputs := map[string][]byte{
		"empty": nil, "one": {'x'}, "sample": sample(3, 500<<10), "noise": noise(300 << 10), "zeros": make([]byte, 3<<20),
		"turns": bytes.Join([][]byte{sample(5, 200<<10), noise(200 << 10), sample(6, 100<<10)}, nil),
		"far":   bytes.Join([][]byte{sample(1, 200<<10), noise(300 << 10), sample(1, 250<<10)}, nil),
	}
	for name, b := range inputs {
		for i, arg := range toolArgs {
			if (i+len(name))%3 > 0 && (testing.Short() || len(b) > 1<<20) {
				continue
			}
			t.Run(name+" "+arg, func(t *testing.T) {
				packed := tool(t, b, strings.Fields(arg)...)
				k := check(t, append(packed, 0, 0, 0, 0))
				filtered := strings.Contains(arg, "--x86") || strings.Contains(arg, "--delta")
				if !filtered && !bytes.Equal(k.plain, b) || len(k.plain) != len(b) || k.packed != int64(len(packed)) {
					t.Errorf("%d of %d packed, %d of %d plain", k.packed, len(packed), len(k.plain), len(b))
				}
			})
		}
	}
}
