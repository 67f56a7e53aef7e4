package origin

import (
	"fmt"
	"testing"
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
