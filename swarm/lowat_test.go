package swarm

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"testing"

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
