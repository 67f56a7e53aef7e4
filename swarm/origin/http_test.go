package origin

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestParseContentRange(t *testing.T) {
	for s, want := range map[string]string{
		"bytes 0-0/1":                     "0 1 1 true",
		"bytes 5-9/10":                    "5 10 10 true",
		"bytes 5-9/*":                     "5 10 -1 true",
		"bytes 5-10/10":                   "0 0 0 false",
		"bytes 9-5/10":                    "0 0 0 false",
		"bytes */10":                      "0 0 0 false",
		"bytes -1-5/10":                   "0 0 0 false",
		"bytes +1-5/10":                   "0 0 0 false",
		"bytes 0-5":                       "0 0 0 false",
		"bytes=0-5/10":                    "0 0 0 false",
		"":                                "0 0 0 false",
		"bytes 0-99999999999999999999/*":  "0 0 0 false",
		"bytes 0-9223372036854775807/*":   "0 0 0 false",
		"bytes 0-5/10, bytes 7-8/10":      "0 0 0 false",
		"bytes 18446744073709551615-2/10": "0 0 0 false",
	} {
		if got := fmt.Sprintln(parseContentRange(s)); got != want+"\n" {
			t.Errorf("%q: %s", s, got)
		}
	}
}

func FuzzParseContentRange(f *testing.F) {
	f.Add("bytes 5-9/10")
	f.Add("bytes 5-9/*")
	f.Fuzz(func(t *testing.T, s string) {
		start, end, total, ok := parseContentRange(s)
		if ok && (start < 0 || end <= start || total >= 0 && end > total) {
			t.Fatalf("%q: %d to %d of %d", s, start, end, total)
		}
	})
}

// trickle is a connection on which 1,448 bytes come every millisecond.
type trickle struct {
	net.Conn
	begin time.Time
	taken int
	reads int
}

func (c *trickle) Read(b []byte) (int, error) {
	c.reads++
	there := int(time.Since(c.begin)/time.Millisecond)*1448 - c.taken
	if there == 0 {
		time.Sleep(time.Millisecond)
		there = 1448
	}
	n := min(len(b), there)
	c.taken += n
	return n, nil
}

// TestDownloadRests checks that a body is read in large pieces, and what is short at once.
func TestDownloadRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &trickle{begin: time.Now()}
		c := &countConn{Conn: in, t: new(traffic)}
		if _, err := io.ReadFull(c, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if in.reads > 60 {
			t.Errorf("%d reads for 1 MiB", in.reads)
		}
		if d := time.Since(in.begin); d > 745*time.Millisecond {
			t.Errorf("1 MiB took %v", d)
		}
		if n := c.t.in.Load(); n != 1<<20 {
			t.Errorf("counted %d bytes", n)
		}
		time.Sleep(time.Second)
		begin := time.Now()
		for range 10 {
			if _, err := c.Read(make([]byte, 512)); err != nil {
				t.Fatal(err)
			}
		}
		if time.Since(begin) > 0 {
			t.Error("short reads wait")
		}
	})
}

// TestDownloadOverTCP reads what comes in small pieces over a real connection, to its last byte.
func TestDownloadOverTCP(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sent := bytes.Repeat([]byte("piece"), 20_000)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for rest := sent; len(rest) > 0; {
			k := min(len(rest), 1448)
			_, _ = c.Write(rest[:k])
			rest = rest[k:]
			time.Sleep(time.Millisecond)
		}
	}()
	conn, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := &countConn{Conn: conn, t: new(traffic)}
	defer c.Close()
	got := make([]byte, len(sent))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes: %v", n, len(sent), err)
	}
}
