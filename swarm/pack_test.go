package swarm

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"updraft/swarm/wire"
)

func random(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func text(n int) []byte {
	return []byte(strings.Repeat("a release is an immutable version on a channel; ", n/40+1))[:n]
}

func TestPackRoundTrip(t *testing.T) {
	var c codec
	for _, n := range []int{packLeast, 5000, 64 << 10, 200_001, wire.MaxBlob} {
		b := text(n)
		f := c.pack(b)
		if f == nil {
			t.Fatalf("%d bytes of text do not shrink", n)
		}
		if f.size() != n || len(f.b) >= n-n/packGain {
			t.Errorf("%d bytes became %d for %d", n, len(f.b), f.size())
		}
		plain, err := c.unpack(f.b, n, sha256.Sum256(b))
		if err != nil || !bytes.Equal(plain.b, b) || plain.size() != n {
			t.Errorf("%d bytes: %v", n, err)
		}
		f.release()
		plain.release()
	}
	if f := c.pack(random(1, 64<<10)); f != nil {
		t.Error("noise shrank")
	}
}

func TestNoise(t *testing.T) {
	var c codec
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Skip(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	const n = 64 << 10
	for k := range 40 {
		code := exe[len(exe)/2/40*k:][:n]
		if f := c.pack(code); (f == nil) != noise(code) && f != nil && len(f.b) < n/2 {
			t.Errorf("piece %d of a program shrinks to %d bytes and is taken for noise", k, len(f.b))
		}
		if !noise(random(uint64(k), n)) {
			t.Error("noise is not recognised")
		}
	}
	if noise(text(n)) || noise(make([]byte, n)) || noise(text(packLeast)) {
		t.Error("text is taken for noise")
	}
	if frame := z.EncodeAll(exe[:2<<20], nil); !noise(frame[1000:][:n]) {
		t.Error("a compressed file is not recognised")
	}
}

func TestPackingGivesUp(t *testing.T) {
	var p packing
	tried := 0
	for range 1000 {
		if p.worthLocked() {
			tried++
			p.learnLocked(false)
		}
	}
	if tried < 10 || tried > 30 {
		t.Errorf("tried %d of 1000 blobs that do not shrink", tried)
	}
	for !p.worthLocked() {
	}
	p.learnLocked(true)
	for range 2 {
		if !p.worthLocked() {
			t.Error("an object that shrinks again is not tried")
		}
	}
}

// TestUnpackIsBounded gives the decoder frames that want more than they may have.
func TestUnpackIsBounded(t *testing.T) {
	var c codec
	z, err := zstd.NewWriter(nil, zstd.WithWindowSize(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 64<<20)
	var sum [32]byte
	streamed := new(bytes.Buffer) // no size of the content in the frame
	zs, err := zstd.NewWriter(streamed, zstd.WithWindowSize(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := zs.Write(zeros); err != nil {
		t.Fatal(err)
	}
	if err := zs.Close(); err != nil {
		t.Fatal(err)
	}
	good := z.EncodeAll(text(5000), nil)
	for name, frame := range map[string][]byte{
		"bomb": z.EncodeAll(zeros, nil), "bomb without a size": streamed.Bytes(), "nothing": {}, "empty": z.EncodeAll(nil, nil),
		"noise": random(1, 100), "short": good[:len(good)/2], "other length": z.EncodeAll(text(4999), nil), "other bytes": good,
		"two frames": append(bytes.Clone(good), good...), "a skippable frame": {0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0x7f},
	} {
		var m0, m1 runtime.MemStats
		runtime.ReadMemStats(&m0)
		if f, err := c.unpack(frame, 5000, sum); f != nil || !errors.Is(err, errPacked) {
			t.Errorf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&m1)
		if n := m1.TotalAlloc - m0.TotalAlloc; n > 4<<20 {
			t.Errorf("%s: takes %d bytes of memory", name, n)
		}
	}
	if f, err := c.unpack(good, 5000, sha256.Sum256(text(5000))); err != nil {
		t.Error(err)
	} else {
		f.release()
	}
}

func FuzzUnpack(f *testing.F) {
	var c codec
	z, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	b := text(3000)
	sum := sha256.Sum256(b)
	f.Add(z.EncodeAll(b, nil), 3000)
	f.Add(z.EncodeAll(make([]byte, 1<<20), nil), 1<<20)
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 0, 0}, 100)
	f.Fuzz(func(t *testing.T, frame []byte, n int) {
		if n < 1 || n > wire.MaxBlob {
			return
		}
		p, err := c.unpack(frame, n, sum)
		if err == nil {
			if !bytes.Equal(p.b, b) {
				t.Fatal("other bytes are taken")
			}
			p.release()
		}
	})
}
