package swarm

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	manet "github.com/multiformats/go-multiaddr/net"
)

// record is a TLS record of application data with n bytes.
func record(n int) []byte {
	return append([]byte{0x17, 3, 3, byte(n >> 8), byte(n)}, make([]byte, n)...)
}

func hello() []byte { return []byte("\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n") }

func TestFollowRecords(t *testing.T) {
	stream := hello()
	for _, n := range []int{1, 200, recordMost, 5, 9000} {
		stream = append(stream, record(n)...)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var c recordConn
		for rest := stream; len(rest) > 0; {
			k := 1 + r.IntN(min(len(rest), 6000))
			if !c.follow(rest[:k]) {
				t.Fatal("lost the records")
			}
			rest = rest[k:]
			if c.rest > len(rest) {
				t.Fatalf("waits for %d of %d bytes", c.rest, len(rest))
			}
		}
		if c.rest != 0 || c.n != 0 {
			t.Fatalf("%d and %d bytes left", c.rest, c.n)
		}
	}
}

func TestFollowGivesUp(t *testing.T) {
	for _, b := range [][]byte{{0x99}, {0x17, 9}, append([]byte{0x17, 3, 3}, 0xff, 0xff), []byte("GET / HTTP/1.1")} {
		var c recordConn
		if c.follow(b) {
			t.Errorf("follows % x", b)
		}
	}
}

// TestRecordConnDelivers sends records in pieces over a real connection: everything arrives, also when the other side
// ends in the middle of one.
func TestRecordConnDelivers(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sent := hello()
	for range 50 {
		sent = append(sent, record(16<<10)...)
	}
	sent = append(sent, record(16 << 10)[:7000]...)
	go func() {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			return
		}
		defer c.Close()
		for rest := sent; len(rest) > 0; {
			k := min(len(rest), 1+rand.IntN(3000))
			_, _ = c.Write(rest[:k])
			rest = rest[k:]
		}
	}()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	m, err := manet.WrapNetConn(in)
	if err != nil {
		t.Fatal(err)
	}
	c := followRecords(m)
	if _, ok := c.(*recordConn); !ok {
		t.Fatal("a TCP connection is not followed")
	}
	defer c.Close()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes, %v", len(got), len(sent), err)
	}
}

// TestDueNeverExceeds plays messages of the multiplexer in records of any size: what the reader waits for is at every
// moment within the message under way.
func TestDueNeverExceeds(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		var c recordConn
		for range 4 {
			left := 1 + r.IntN(muxMessage) // plain bytes of the message that have not been handed over
			var ends []int                 // plain bytes of each record
			most := 1 + r.IntN(recordData)
			for n := left; n > 0; n -= ends[len(ends)-1] {
				ends = append(ends, min(n, most))
			}
			for k, n := range ends {
				raw := record(n + 17)
				behind := 0
				for _, m := range ends[k+1:] {
					behind += m + recordCost
				}
				for len(raw) > 0 {
					c.want = 0
					if left >= bulkLeast {
						c.want = left
					}
					if due := c.due(); due > len(raw)+behind {
						t.Fatalf("waits for %d of %d bytes", due, len(raw)+behind)
					}
					p := raw[:1+r.IntN(len(raw))]
					if !c.follow(p) {
						t.Fatal("lost the records")
					}
					raw = raw[len(p):]
				}
				left -= n
			}
		}
	}
}

// TestCorkKeepsOrder writes short and long messages from two sides of a connection at once.
func TestCorkKeepsOrder(t *testing.T) {
	c, b := recorded(t)
	var got []byte
	done := make(chan struct{})
	go func() {
		defer close(done)
		got, _ = io.ReadAll(b)
	}()
	c.cork(nil)
	for i := range 10 {
		if n, err := c.Write([]byte{byte(i), byte(i)}); n != 2 || err != nil {
			t.Fatal(n, err)
		}
	}
	if _, err := c.uncork(); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte{10})
	c.Close()
	<-done
	if want := []byte{0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10}; !bytes.Equal(got, want) {
		t.Errorf("% x", got)
	}
	c.cork(nil)
	_, _ = c.Write([]byte{1})
	if _, err := c.uncork(); err == nil {
		t.Error("a write to a closed connection succeeded")
	}
}

// recorded returns the two ends of a connection, the first of them followed.
func recorded(t *testing.T) (*recordConn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	m, err := manet.WrapNetConn(a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return followRecords(m).(*recordConn), b
}

// TestWriteWaits writes more than the kernel takes to one who reads late: all of it arrives in order. A write that
// nobody reads ends at its deadline.
func TestWriteWaits(t *testing.T) {
	c, b := recorded(t)
	sent := make([]byte, 16<<20)
	for i := range sent {
		sent[i] = byte(i >> 10)
	}
	wrote := make(chan error)
	go func() {
		n, err := c.Write(sent)
		if err == nil && n != len(sent) {
			err = io.ErrShortWrite
		}
		wrote <- err
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, sent) {
		t.Error("what arrived is not what was sent:", err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	if err := c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Write(sent); !errors.Is(err, os.ErrDeadlineExceeded) || n >= len(sent) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestTrafficOfAMessageUnderWay: the reader of a connection sleeps until a whole record is there, but what has come of it
// is known, also from what libp2p makes of the connection.
func TestTrafficOfAMessageUnderWay(t *testing.T) {
	var hosts []host.Host
	for range 2 {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		k, err := crypto.UnmarshalEd25519PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		h, err := NewHost(HostConfig{Key: k, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		hosts = append(hosts, h)
	}
	if err := hosts[0].Connect(t.Context(), peer.AddrInfo{ID: hosts[1].ID(), Addrs: hosts[1].Addrs()}); err != nil {
		t.Fatal(err)
	}
	ends := [2]*recordConn{}
	for k, h := range hosts {
		for len(h.Network().ConnsToPeer(hosts[1-k].ID())) == 0 {
			time.Sleep(time.Millisecond)
		}
		if !h.Network().ConnsToPeer(hosts[1-k].ID())[0].As(&ends[k]) {
			t.Fatal("the connection does not tell what it is on")
		}
	}
	before, _ := ends[1].traffic()
	if before == 0 {
		t.Fatal("a handshake without bytes")
	}
	part := record(16 << 10)[:9000]
	if _, err := ends[0].Write(part); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		now, _ := ends[1].traffic()
		_, acked := ends[0].traffic()
		if now-before >= int64(len(part)) && acked >= now {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d bytes came, %d were acknowledged", now-before, len(part), acked)
		}
	}
}
