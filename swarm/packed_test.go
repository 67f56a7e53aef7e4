package swarm_test

import (
	"bufio"
	"crypto/sha256"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/libp2p/go-libp2p/core/network"

	"updraft/swarm"
	"updraft/swarm/wire"
)

// prose is content that shrinks to a fraction.
func prose(n, size int) content {
	var c content
	h := sha256.New()
	for i := range n {
		b := []byte(strings.Repeat(strings.Repeat("blob ", i%7+1)+"of a release; ", size/10))[:size]
		b[0] = byte(i)
		c.data = append(c.data, b)
		s := sha256.Sum256(b)
		h.Write(s[:])
		c.Sums = append(c.Sums, s)
		c.Sizes = append(c.Sizes, uint32(size))
	}
	h.Sum(c.ID[:0])
	return c
}

// TestFramesArePassedOn injects blobs in the form in which an origin has them: every device gets that form.
func TestFramesArePassedOn(t *testing.T) {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 8, nil)
		defer s.close()
		c := prose(64, 64<<10)
		s.open(c, swarm.OpenOptions{Receive: true}, nil)
		var frames int
		for i, b := range c.data {
			frame := z.EncodeAll(b, nil)
			frames += len(frame)
			_ = s.stores[0].Put(i, b)
			s.dev[0].InjectPacked(c.ID, i, frame)
			time.Sleep(5 * time.Millisecond)
		}
		s.finish(c)
		for k, d := range s.dev {
			cnt := d.Counters()
			if k > 0 && (cnt.PackedIn != cnt.BlobsIn || cnt.BytesIn > int64(frames)*11/10) {
				t.Errorf("device %d received %d bytes for %d in frames: %+v", k, cnt.BytesIn, frames, cnt)
			}
			if cnt.PackedOut != cnt.BlobsOut {
				t.Errorf("device %d sent %d of %d blobs compressed", k, cnt.PackedOut, cnt.BlobsOut)
			}
		}
	})
}

// TestSeedCompresses reads plain bytes and sends frames, but what does not shrink as it is.
func TestSeedCompresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3, nil)
		defer s.close()
		for _, c := range []content{prose(64, 64<<10), makeContent(31, 64, 64<<10)} {
			before := s.dev[0].Counters()
			s.open(c, swarm.OpenOptions{Receive: true}, func(dev, _ int) bool { return dev == 0 })
			s.finish(c)
			cnt := s.dev[0].Counters()
			sent, packed := cnt.BlobsOut-before.BlobsOut, cnt.PackedOut-before.PackedOut
			if shrinks := c.Sizes[0] == c.Sizes[1]; shrinks && packed != sent || !shrinks && packed != 0 {
				t.Errorf("%d of %d blobs compressed, where they shrink: %v", packed, sent, shrinks)
			}
		}
	})
}

// TestPlainForOlderPeers sends what an older program takes.
func TestPlainForOlderPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 2, nil)
		defer s.close()
		c := prose(8, 32<<10)
		s.open(c, swarm.OpenOptions{Receive: true}, func(int, int) bool { return true })
		p := s.raw(s.dev[0])
		defer p.h.Close()
		got := make(chan wire.BlobHeader, 8)
		p.h.SetStreamHandler(swarm.ProtoBlob, func(st network.Stream) {
			r := bufio.NewReader(st)
			for {
				h, err := wire.ReadBlobHeader(r)
				if err != nil {
					return
				}
				if _, err := io.CopyN(io.Discard, r, int64(h.Follows())); err != nil {
					return
				}
				got <- h
			}
		})
		p.join()
		p.send(wire.AppendInterest(nil, wire.Interest{ID: c.ID, Count: 8, Flags: wire.FlagReceive, Bits: []byte{0}}))
		time.Sleep(time.Second)
		p.send(wire.AppendIndexes(nil, wire.TypeGet, c.ID, []uint32{2, 3}))
		for range 2 {
			select {
			case h := <-got:
				if h.Packed != 0 || h.Len != 32<<10 {
					t.Errorf("header %+v", h)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("nothing came")
			}
		}
	})
}

// TestBombIsShunned sends a frame that is not the blob.
func TestBombIsShunned(t *testing.T) {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, frame := range map[string][]byte{"bomb": z.EncodeAll(make([]byte, 32<<20), nil), "noise": []byte("no frame"), "another blob": z.EncodeAll(make([]byte, 10<<10), nil)} {
		t.Run(name, func(t *testing.T) {
			hostile(t, func(t *testing.T, s *site, c content, p *raw) {
				p.join()
				st, err := p.h.NewStream(t.Context(), p.to, swarm.ProtoBlob)
				if err != nil {
					t.Fatal(err)
				}
				b := wire.AppendBlobHeader(nil, wire.BlobHeader{ID: c.ID, Index: 3, Len: c.Sizes[3], Packed: uint32(len(frame))})
				if _, err := st.Write(append(b, frame...)); err != nil {
					t.Fatal(err)
				}
				if !p.cutOff(5 * time.Second) {
					t.Error("a liar stays connected")
				}
				if cnt := s.dev[0].Counters(); cnt.BadBlobs != 1 || cnt.Shunned != 1 {
					t.Errorf("counters %+v", cnt)
				}
				if have, _ := s.dev[0].Progress(c.ID); have != 0 {
					t.Error("it was stored")
				}
			})
		})
	}
}
