package report_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"updraft/node/report"
)

// sampleLine is a line of Prometheus text: in a label's value only the backslash,
// the quote and the line feed are escaped.
var sampleLine = regexp.MustCompile(`^[a-z_]+(\{[a-z_]+="([^"\\\n]|\\["\\n])*"(,[a-z_]+="([^"\\\n]|\\["\\n])*")*\})? -?[0-9.e+-]+$`)

func metricsOf(t *testing.T, d *device) []string {
	t.Helper()
	w := httptest.NewRecorder()
	report.Handler(d).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text, ok := strings.CutSuffix(w.Body.String(), "\n")
	if w.Code != http.StatusOK || !ok || !utf8.ValidString(text) {
		t.Fatalf("status %d: %q", w.Code, w.Body)
	}
	return strings.Split(text, "\n")
}

func TestMetricsAreWellFormed(t *testing.T) {
	d := sample()
	for _, odd := range []string{"", `"`, `\`, "\n", "a{b}=,c", "\x00\x01\t\r", "é\u200b", "\xff"} {
		d.status.Current, d.status.Target = odd, "x"+odd+"y"
		d.status.Problems = []report.Problem{{Code: odd}, {Code: odd + odd}}
		info := false
		for _, l := range metricsOf(t, d) {
			if !sampleLine.MatchString(l) {
				t.Errorf("%q: malformed line %q", odd, l)
			}
			info = info || strings.HasPrefix(l, "updraft_info{")
		}
		if !info {
			t.Errorf("%q: no updraft_info", odd)
		}
	}
}

func TestMetricsOfNewDevice(t *testing.T) {
	for _, l := range metricsOf(t, new(device)) {
		if !sampleLine.MatchString(l) {
			t.Errorf("malformed line %q", l)
		}
		if strings.HasPrefix(l, "updraft_last_check_time_seconds") {
			t.Errorf("never checked: %s", l)
		}
	}
}

// TestNothingIsLeftRunning stops a control socket and a metrics port in use.
func TestNothingIsLeftRunning(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 5 {
		data, d := t.TempDir(), sample()
		begun := make(chan struct{})
		d.check = func(ctx context.Context) (report.CheckResult, error) {
			close(begun)
			<-ctx.Done()
			return report.CheckResult{}, ctx.Err()
		}
		stop := serve(t, data, d)
		ended := make(chan error, 1)
		go func() {
			_, err := report.Dial(data).Check(context.Background())
			ended <- err
		}()
		<-begun
		if _, err := report.Dial(data).Status(t.Context()); err != nil {
			t.Error(err)
		}
		stop()
		if err := <-ended; err == nil {
			t.Error("an answer from an agent that stopped")
		}
	}
	var now int
	for range 200 { // connections end a little after their server
		if now = runtime.NumGoroutine(); now <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 64<<10)
	t.Errorf("%d goroutines, %d before:\n%s", now, before, buf[:runtime.Stack(buf, true)])
}
