package deflate_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"updraft/delta/patch/internal/deflate"
)

// all reports whether every combination of settings and kinds of bytes is wanted: that
// takes more than a minute.
func all() bool { return os.Getenv("UPDRAFT_ALL") != "" }

// some reports whether the combination no of a kind of bytes is tried: two of three for
// the mixture, which has every kind in it, and every ninth of the others.
func some(kind string, no int) bool {
	return all() || kind == "mixed" && no%3 != 1 || (no+len(kind))%9 == 5
}

// corpus returns plain bytes of several kinds: text, code, runs, noise, mixtures.
func corpus(t testing.TB) map[string][]byte {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	code = code[:min(len(code), 700<<10)]
	var text bytes.Buffer
	src, _ := filepath.Glob("*.go")
	for range 3 {
		for _, f := range src {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			text.Write(b)
		}
	}
	noise := make([]byte, 300<<10)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(noise)
	n := 1
	if !all() {
		n = 3
	}
	mixed := bytes.Clone(code[:400<<10/n])
	mixed = append(mixed, noise[:100<<10/n]...)
	mixed = append(mixed, make([]byte, 200<<10/n)...)
	mixed = append(mixed, text.Bytes()[:100<<10]...)
	return map[string][]byte{
		"code": code, "text": text.Bytes(), "noise": noise, "mixed": mixed,
		"empty": nil, "one": {'x'}, "zeros": make([]byte, 1<<20), "short": []byte("hello, hello, hello"),
	}
}

// check analyses a stream, makes it again, and returns the bytes of corrections.
func check(t *testing.T, packed, plain []byte, o deflate.Options) deflate.Result {
	t.Helper()
	r, err := deflate.Analyze(context.Background(), bytes.NewReader(packed), 0, int64(len(packed)), o)
	if err != nil {
		t.Fatalf("Analyze: %v", err)
	}
	if r.Plain != int64(len(plain)) {
		t.Fatalf("plain %d, want %d", r.Plain, len(plain))
	}
	var out bytes.Buffer
	w, err := deflate.NewWriter(&out, r.Params, r.Corrections)
	if err != nil {
		t.Fatal(err)
	}
	for b := plain; len(b) > 0; {
		n := min(len(b), 77777)
		if _, err := w.Write(b[:n]); err != nil {
			t.Fatal(err)
		}
		b = b[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), packed[:r.Packed]) {
		t.Fatal("made another stream")
	}
	return r
}

// run feeds in to a program and returns what it writes.
func run(t *testing.T, in []byte, name string, arg ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(name, arg...)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}

func TestGzip(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and of one goroutine")
	}
	t.Parallel()
	for name, plain := range corpus(t) {
		for _, level := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9} {
			if !some(name, level) {
				continue
			}
			t.Run(fmt.Sprintf("%s-%d", name, level), func(t *testing.T) {
				b := run(t, plain, "gzip", "-n", "-c", fmt.Sprint("-", level))
				r := check(t, b[10:], plain, deflate.Options{})
				if len(r.Corrections) > 12 {
					t.Errorf("%v: %d bytes of corrections", r.Params, len(r.Corrections))
				}
				if int(r.Packed) != len(b)-18 {
					t.Errorf("packed %d of %d", r.Packed, len(b)-18)
				}
			})
		}
	}
}

const zlibScript = `
import sys, zlib
level, memory, window, strategy = map(int, sys.argv[1:])
c = zlib.compressobj(level, zlib.DEFLATED, -window, memory, strategy)
b = sys.stdin.buffer.read()
sys.stdout.buffer.write(c.compress(b) + c.flush())
`

func TestZlib(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and of one goroutine")
	}
	t.Parallel()
	type setting struct{ level, memory, window, strategy int }
	var settings []setting
	for l := 1; l <= 9; l++ {
		settings = append(settings, setting{l, 8, 15, 0}, setting{l, 9, 15, 0})
	}
	for m := 1; m <= 7; m++ {
		settings = append(settings, setting{6, m, 15, 0})
	}
	settings = append(settings, setting{6, 8, 15, 1}, setting{6, 8, 15, 2}, setting{6, 8, 15, 3}, setting{6, 8, 15, 4}, setting{6, 8, 12, 0}, setting{9, 9, 10, 0})
	for name, plain := range corpus(t) {
		for no, s := range settings {
			if !some(name, no) {
				continue
			}
			arg := strings.Fields(strings.Trim(fmt.Sprint(s), "{}"))
			t.Run(name+"-"+strings.Join(arg, "-"), func(t *testing.T) {
				b := run(t, plain, "python3", append([]string{"-c", zlibScript}, arg...)...)
				r := check(t, b, plain, deflate.Options{Window: uint8(s.window)})
				// Small memory: the stream may depend on how its bytes came to zlib.
				if n := len(r.Corrections); n > 0 && (s.memory >= 8 || n > 16 && name != "noise") {
					t.Errorf("%v: %d bytes of corrections", r.Params, len(r.Corrections))
				}
			})
		}
	}
}
