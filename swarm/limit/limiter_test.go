package limit_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"updraft/swarm/limit"
)

func TestRateIsExact(t *testing.T) {
	for _, rate := range []int64{1000, 125_000, 2_500_000, 125_000_000} {
		synctest.Test(t, func(t *testing.T) {
			l := limit.New(rate)
			start := time.Now()
			total := int(rate) * 2
			for sent := 0; sent < total; sent += 1000 {
				if err := l.WaitN(t.Context(), 1000); err != nil {
					t.Fatal(err)
				}
			}
			// Two seconds, less the burst at the start.
			got := time.Since(start).Seconds()
			if got > 2.001 || got < 2-float64(max(rate/20, 1460))/float64(rate)-0.001 {
				t.Errorf("rate %d: two seconds of bytes took %.4f s", rate, got)
			}
			if l.Rate() != rate {
				t.Errorf("Rate %d", l.Rate())
			}
		})
	}
}

func TestLargeWaitAndCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(1000)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if err := l.WaitN(ctx, 1_000_000); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("returned after %v", d)
		}
		if err := l.WaitN(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended context: %v", err)
		}
	})
}

func TestUnlimited(t *testing.T) {
	var l *limit.Limiter
	if err := l.WaitN(t.Context(), 1<<40>>20); err != nil {
		t.Error(err)
	}
	if l.Rate() != 0 || limit.New(0) != nil || limit.New(-1) != nil {
		t.Error("no limit must be nil")
	}
	var b bytes.Buffer
	if limit.Reader(t.Context(), &b, nil) != io.Reader(&b) || limit.Writer(t.Context(), &b, nil) != io.Writer(&b) {
		t.Error("no limit must not wrap")
	}
}

func TestSharedByMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(100_000)
		start := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				for range 100 {
					l.WaitN(t.Context(), 1000)
				}
			})
		}
		wg.Wait()
		if d := time.Since(start).Seconds(); d < 9.9 || d > 10.01 {
			t.Errorf("a million bytes at 100 kB/s took %.3f s", d)
		}
	})
}

func TestReaderWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := bytes.Repeat([]byte("0123456789"), 10_000)
		start := time.Now()
		got, err := io.ReadAll(limit.Reader(t.Context(), bytes.NewReader(data), limit.New(50_000)))
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("read: %v", err)
		}
		var b bytes.Buffer
		if n, err := limit.Writer(t.Context(), &b, limit.New(50_000)).Write(data); n != len(data) || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
		if !bytes.Equal(b.Bytes(), data) {
			t.Error("written bytes differ")
		}
		if d := time.Since(start).Seconds(); d < 3.8 || d > 4.01 {
			t.Errorf("took %.3f s", d)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := limit.Writer(ctx, &b, limit.New(10)).Write(data); !errors.Is(err, context.Canceled) {
			t.Errorf("ended context: %v", err)
		}
	})
}

// serve sends data to every connection of a listener shaped to rate.
func serve(t *testing.T, rate int64, c *limit.Counters, data []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	shaped := limit.Listener(l, rate, c)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := shaped.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				io.ReadFull(conn, make([]byte, 4))
				conn.Write(data)
			})
		}
	})
	t.Cleanup(func() { shaped.Close(); wg.Wait() })
	return l.Addr().String()
}

func fetch(t *testing.T, addr string) []byte {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer conn.Close()
	conn.Write([]byte("ping"))
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Error(err)
	}
	return b
}

func TestListener(t *testing.T) {
	const rate = 2_500_000 // 20 Mbit/s
	data := bytes.Repeat([]byte("updraft "), 80_000)
	var c limit.Counters
	addr := serve(t, rate, &c, data)
	start := time.Now()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if !bytes.Equal(fetch(t, addr), data) {
				t.Error("bytes differ")
			}
		})
	}
	wg.Wait()
	sent := 3 * int64(len(data))
	if c.Out.Load() != sent || c.In.Load() != 12 || c.Conns.Load() != 3 {
		t.Errorf("counted %d out, %d in, %d connections", c.Out.Load(), c.In.Load(), c.Conns.Load())
	}
	d := time.Since(start).Seconds()
	if limitTime := float64(sent-limit.Burst) / rate; d < limitTime {
		t.Errorf("%d bytes in %.3f s are more than the link carries", sent, d)
	}
	t.Logf("%.1f %% of the nominal rate", 100*float64(sent)/rate/d)
}

func TestListenerCloseEndsWait(t *testing.T) {
	var c limit.Counters
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	shaped := limit.Listener(l, 100, &c)
	defer shaped.Close()
	done := make(chan error)
	go func() {
		conn, err := shaped.Accept()
		if err != nil {
			done <- err
			return
		}
		go conn.Close()
		_, err = conn.Write(make([]byte, 1<<20))
		done <- err
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
}

func BenchmarkListener(b *testing.B) {
	for _, rate := range []int64{1_250_000, 2_500_000, 12_500_000} {
		l, _ := net.Listen("tcp", "127.0.0.1:0")
		shaped := limit.Listener(l, rate, nil)
		go func() {
			for {
				c, err := shaped.Accept()
				if err != nil {
					return
				}
				io.Copy(c, io.LimitReader(zero{}, 3*rate))
				c.Close()
			}
		}()
		b.Run(b.Name(), func(b *testing.B) {
			for b.Loop() {
				start := time.Now()
				c, _ := net.Dial("tcp", l.Addr().String())
				n, _ := io.Copy(io.Discard, c)
				b.ReportMetric(100*float64(n)/float64(rate)/time.Since(start).Seconds(), "%rate")
			}
		})
		shaped.Close()
	}
}

type zero struct{}

func (zero) Read(b []byte) (int, error) { clear(b); return len(b), nil }
