package patch_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"updraft/delta/patch"
)

// TestPlainWords changes words the way moved code does, at every alignment: the same
// change again must cost next to nothing.
func TestPlainWords(t *testing.T) {
	r := rand.New(rand.NewPCG(40, 40))
	for shift := range 4 {
		old := random(r, 64<<10+shift)
		fresh := bytes.Clone(old)
		changed := 0
		for i := shift; i+4 <= len(old); i += 4 {
			if old[i+3]%16 == 7 {
				binary.LittleEndian.PutUint32(fresh[i:], binary.LittleEndian.Uint32(old[i:])^0x00010204)
				changed++
			}
		}
		p := create(t, old, fresh, patch.Options{Profile: patch.Plain})
		if len(p) > 3*changed {
			t.Errorf("shifted by %d: %d bytes for %d words", shift, len(p), changed)
		}
	}
}

// TestPlainLiterals has literals of all kinds, few and many, in streams of many lengths.
func TestPlainLiterals(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	r := rand.New(rand.NewPCG(41, 41))
	old := random(r, 96<<10)
	phrase := random(r, 40)
	for n := 1; n < 9000; n += 1 + n/3 {
		for kind := range 4 {
			t.Run(fmt.Sprint(kind, "/", n), func(t *testing.T) {
				var lit []byte
				for len(lit) < n {
					switch kind {
					case 0:
						lit = append(lit, random(r, n)...)
					case 1:
						lit = append(lit, bytes.Repeat([]byte{7}, 1+r.IntN(600))...)
					case 2:
						lit = append(append(lit, phrase[r.IntN(30):]...), byte(r.Uint32()))
					default:
						lit = append(lit, text(r, n)...)
					}
				}
				at := r.IntN(len(old))
				fresh := append(append(bytes.Clone(old[:at]), lit[:n]...), old[at:]...)
				p := create(t, old, fresh, patch.Options{Profile: patch.Plain, SegmentSize: 50000})
				if len(p) > n+n/50+400 {
					t.Errorf("%d bytes for %d", len(p), n)
				}
			})
		}
	}
}

// TestPlainGarbage decodes payloads that are noise: it must end, and say so.
func TestPlainGarbage(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	r := rand.New(rand.NewPCG(42, 42))
	old := text(r, 20000)
	p := create(t, old, edit(r, old, 60), patch.Options{Profile: patch.Plain})
	in, err := patch.Inspect(bytes.NewReader(p))
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		q := bytes.Clone(p)
		for i := int(in.HeaderBytes) + 1; i < len(q); i++ {
			q[i] = byte(r.Uint32())
		}
		if _, err := decode(t.Context(), q, old); err == nil {
			t.Fatal("noise decodes")
		}
	}
}
