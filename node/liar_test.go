package node_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/delta/chunk"
	"updraft/delta/patch"
	"updraft/node/fleet"
	"updraft/node/report"
	"updraft/swarm"
	"updraft/swarm/wire"
)

// liar is an enrolled device that speaks the protocol by hand: to every object that
// its victim wants it says that it has all of it, and sends wrong bytes.
type liar struct {
	h     host.Host
	pages map[[32]byte][]chunk.Chunk // by digest
}

// newLiar joins the device at addr in the name of a device of the fleet.
func newLiar(t *testing.T, s *site, name, addr string) *liar {
	t.Helper()
	h, to, st, r := s.join(t, name, addr)
	l := &liar{h, s.pages(t)}
	go l.lie(to, st, r)
	return l
}

// join says hello to the device at addr in the name of a device of the fleet.
func (s *site) join(t *testing.T, name, addr string) (host.Host, peer.ID, network.Stream, *bufio.Reader) {
	t.Helper()
	e, err := s.fleet.Enroll(fleet.EnrollOptions{Name: name, Type: "lab", Site: "lab"})
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := e.PrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	h, err := swarm.NewHost(swarm.HostConfig{Key: key, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	to, err := peer.AddrInfoFromString(addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := h.Connect(ctx, *to); err != nil {
		t.Fatal(err)
	}
	st, err := h.NewStream(ctx, to.ID, swarm.ProtoHello)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write(wire.AppendHello(nil, wire.Hello{Version: wire.Version, Instance: 7, Credential: e.Cert})); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(st)
	if typ, _, err := wire.ReadFrame(r, wire.MaxHello, nil); err != nil || typ != wire.TypeHello {
		t.Fatalf("hello: type %d, %v", typ, err)
	}
	if _, err := st.Write(wire.AppendVerdict(nil, wire.Admitted)); err != nil {
		t.Fatal(err)
	}
	return h, to.ID, st, r
}

// pages reads what the objects of the newest release are made of, from the origin.
func (s *site) pages(t *testing.T) map[[32]byte][]chunk.Chunk {
	t.Helper()
	index, err := os.ReadFile(s.originFile("index/*"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[[32]byte][]chunk.Chunk{}
	for len(index) > 0 {
		n := min(len(index), chunk.PageLen*chunk.RecordSize)
		p, err := chunk.ParsePage(index[:n])
		if err != nil {
			t.Fatal(err)
		}
		out[sha256.Sum256(index[:n])], index = p, index[n:]
	}
	return out
}

// lie answers the first interest in a page with wrong bytes for its chunks.
func (l *liar) lie(to peer.ID, control interface{ Write([]byte) (int, error) }, r *bufio.Reader) {
	for {
		typ, body, err := wire.ReadFrame(r, 1<<20, nil)
		if err != nil {
			return
		}
		if typ != wire.TypeInterest {
			continue
		}
		m, err := wire.ParseInterest(body)
		chunks := l.pages[m.ID]
		if err != nil || m.Flags&wire.FlagReceive == 0 || chunks == nil {
			continue
		}
		_, _ = control.Write(wire.AppendInterest(nil, wire.Interest{ID: m.ID, Count: uint32(len(chunks)), Flags: wire.FlagAll}))
		st, err := l.h.NewStream(context.Background(), to, swarm.ProtoBlob)
		if err != nil {
			return
		}
		last := len(chunks) - 1 // what the origin brings last
		b := wire.AppendBlobHeader(nil, wire.BlobHeader{ID: m.ID, Index: uint32(last), Len: uint32(chunks[last].Len)})
		if _, err := st.Write(append(b, make([]byte, chunks[last].Len)...)); err != nil {
			return
		}
	}
}

// TestBreach: a device of the fleet that breaks the protocol is named in status and not let in again soon.
func TestBreach(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	a := s.start(s.enroll(nil))
	h, to, st, _ := s.join(t, "broken", a.node.Addrs()[0])
	a.awaitPeers(1)
	if _, err := st.Write(wire.AppendFrame(nil, wire.TypeInterest, []byte("short"))); err != nil {
		t.Fatal(err)
	}
	st2 := a.await("blaming it, and alone", func(st report.Status) bool { return len(st.Problems) == 1 && st.Peers == 0 })
	if p := st2.Problems[0]; p.Code != "refused" || p.Subject != "broken" || !strings.Contains(p.Text, "breaks the protocol") || p.Hint == "" {
		t.Errorf("status says %+v", p)
	}
	again, err := h.NewStream(t.Context(), to, swarm.ProtoHello)
	if err == nil {
		_, _ = again.Write(wire.AppendHello(nil, wire.Hello{Version: wire.Version, Instance: 8}))
		if typ, _, err := wire.ReadFrame(bufio.NewReader(again), wire.MaxHello, nil); err == nil && typ == wire.TypeHello {
			t.Error("it is let in again")
		}
	}
}

// TestLiar: a device of the fleet that sends wrong bytes is named in status and
// dropped, and the release comes from elsewhere.
func TestLiar(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1<<20)
	want := noise(1, 4<<20)
	s.publish("1.0.0", s.write("v1/app.bin", want))
	a := s.start(s.enroll(nil))
	newLiar(t, s, "liar", a.node.Addrs()[0])
	a.awaitPeers(1)
	a.look("1.0.0")
	a.await("blaming the liar", func(st report.Status) bool {
		for _, p := range st.Problems {
			if p.Code == "refused" && p.Subject == "liar" && strings.Contains(p.Text, "wrong bytes") && p.Hint != "" {
				return true
			}
		}
		return false
	})
	a.awaitVersion("1.0.0")
	a.sees(want)
	if out := s.link.Out.Load(); out > 5<<20 {
		t.Errorf("the uplink carried %d bytes", out)
	}
	a.await("alone", func(st report.Status) bool { return st.Peers == 0 })
}

// TestManifestOfOneChannelShunsNobodyOfAnother: who signs for one channel names the index of another channel's artifact
// there, by its digest, and other pages of it. The honest devices of the two do not take each other for liars.
func TestManifestOfOneChannelShunsNobodyOfAnother(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 30<<20)
	good := s.publish("1.0.0", s.write("v1/app.bin", v1))
	bad := s.publishOn("evil", patch.Plain, "0.9.0", s.write("evil/app.bin", noise(2, 30<<20)))
	if len(good.Artifacts[0].Pages) != len(bad.Artifacts[0].Pages) {
		t.Fatalf("%d and %d pages", len(good.Artifacts[0].Pages), len(bad.Artifacts[0].Pages))
	}
	bad.Version, bad.Sequence, bad.Artifacts[0].Index = "1.0.0", bad.Sequence+1, good.Artifacts[0].Index
	raw, err := bad.Encode()
	if err != nil {
		t.Fatal(err)
	}
	repo, err := s.fleet.Repo()
	if err != nil {
		t.Fatal(err)
	}
	if err := repo.AddRelease(raw); err != nil {
		t.Fatal(err)
	}
	b, a := s.start(*s.on("evil", nil)), s.start(*s.on("stable", nil))
	b.awaitPeers(1)
	b.look("1.0.0")
	b.await("bringing it in vain", func(st report.Status) bool { return len(st.Problems) > 0 })
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	a.sees(v1)
	for _, x := range []*agent{a, b} {
		for _, p := range x.node.Status().Problems {
			if p.Code == "refused" {
				t.Errorf("%s: an honest device is shunned: %+v", x.node.Status().Name, p)
			}
		}
	}
}
