package simhost_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/testnet/simhost"
)

func TestLinkPacesAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simhost.New(time.Millisecond)
		defer n.Close()
		a, err := n.Host(simhost.Link{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		b, err := n.Host(simhost.Link{Down: 10e6, Up: 10e6}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		const size = 2 << 20
		got := make(chan int64, 1)
		b.SetStreamHandler("/t", func(s network.Stream) {
			k, _ := io.Copy(io.Discard, s)
			got <- k
		})
		ctx := context.Background()
		if err := a.Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}); err != nil {
			t.Fatal(err)
		}
		s, err := a.NewStream(ctx, b.ID(), "/t")
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if _, err := s.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if k := <-got; k != size {
			t.Fatalf("received %d bytes", k)
		}
		// 2 MiB at 10 Mbit/s are 1.68 s without headers.
		if d := time.Since(begin); d < 1600*time.Millisecond || d > 3*time.Second {
			t.Errorf("took %v of virtual time", d)
		}
		if in, _ := n.Bytes(b.ID()); in < size || in > size*11/10 {
			t.Errorf("link counted %d bytes", in)
		}
	})
}

func TestCutSeparates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simhost.New(time.Millisecond)
		defer n.Close()
		a, err := n.Host(simhost.Link{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		b, err := n.Host(simhost.Link{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		n.Cut([]peer.ID{a.ID()})
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		to := peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}
		if err := a.Connect(ctx, to); err == nil {
			t.Fatal("connected across a cut")
		}
		n.Cut()
		if err := a.Connect(network.WithForceDirectDial(context.Background(), "test"), to); err != nil {
			time.Sleep(10 * time.Second) // the dialler backs off
			if err := a.Connect(context.Background(), to); err != nil {
				t.Fatal(err)
			}
		}
	})
}
