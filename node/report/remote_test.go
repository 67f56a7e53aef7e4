package report_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"updraft/node/report"
)

func encodedStatus(t testing.TB) (report.Status, []byte) {
	t.Helper()
	s := report.Status{Format: report.StatusFormat, Name: "till-7", State: "idle", Current: "1.0.0", Since: time.Unix(1767225600, 0).UTC(),
		Problems: []report.Problem{{Code: "origin", Text: "gone", Count: 2}}}
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return s, b
}

func TestParseStatus(t *testing.T) {
	s, b := encodedStatus(t)
	if got, err := report.ParseStatus(b); err != nil || !reflect.DeepEqual(*got, s) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, b := range map[string][]byte{"nothing": nil, "junk": {1, 2}, "no format": []byte(`{}`), "later": []byte(`{"format":99}`), "long": make([]byte, report.MaxStatus+1)} {
		if got, err := report.ParseStatus(b); !errors.Is(err, report.ErrStatus) || got != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseStatus(f *testing.F) {
	_, b := encodedStatus(f)
	f.Add(b)
	f.Add([]byte(`{"format":1,"problems":[{}],"progress":{"have":-1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := report.ParseStatus(b)
		if err != nil {
			if !errors.Is(err, report.ErrStatus) {
				t.Fatal(err)
			}
			return
		}
		if again, err := s.Encode(); err == nil && len(again) <= report.MaxStatus {
			if _, err := report.ParseStatus(again); err != nil {
				t.Fatal(err)
			}
		}
	})
}
