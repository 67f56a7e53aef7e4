package report

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	runtimemetrics "runtime/metrics"
	"strings"

	"github.com/VictoriaMetrics/metrics"
)

// metricsHandler answers with the status as Prometheus text.
func metricsHandler(b Backend) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		var buf bytes.Buffer
		writeMetrics(&buf, b.Status())
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = w.Write(buf.Bytes()) // the client has gone: nobody to tell
	}
}

// writeMetrics writes s. The set is made for each answer: nothing is registered
// globally.
func writeMetrics(w io.Writer, s Status) {
	set := metrics.NewSet()
	counter := func(name string, n int64) { set.NewCounter(name).Set(uint64(max(n, 0))) }
	gauge := func(name string, v float64) { set.NewGauge(name, func() float64 { return v }) }

	counter(`updraft_received_bytes_total{source="uplink"}`, s.Bytes.Uplink)
	counter(`updraft_received_bytes_total{source="lan"}`, s.Bytes.LANIn)
	counter(`updraft_received_bytes_total{source="reused"}`, s.Bytes.Reused)
	counter("updraft_lan_sent_bytes_total", s.Bytes.LANOut)
	counter("updraft_written_bytes_total", s.Bytes.Written)

	gauge("updraft_peers", float64(s.Peers))
	holder := 0.0
	if s.IsHolder {
		holder = 1
	}
	gauge("updraft_uplink_holder", holder)
	gauge("updraft_start_time_seconds", float64(s.Since.Unix()))
	if !s.LastCheck.IsZero() {
		gauge("updraft_last_check_time_seconds", float64(s.LastCheck.Unix()))
	}
	progress := 1.0
	if s.Progress != nil && s.Progress.Total > 0 {
		progress = float64(s.Progress.Have) / float64(s.Progress.Total)
	}
	gauge("updraft_update_progress_ratio", progress)
	gauge(fmt.Sprintf("updraft_info{version=%s,target=%s,state=%s,role=%s}", label(s.Current), label(s.Target), label(s.State), label(s.Role)), 1)

	byCode := map[string]int{}
	for _, p := range s.Problems {
		byCode[label(p.Code)]++
	}
	gauge("updraft_problems", float64(len(s.Problems)))
	for code, n := range byCode {
		gauge(fmt.Sprintf("updraft_problems_by_code{code=%s}", code), float64(n))
	}
	// Of the process, as other programs in Go name them: what grows while a device is idle is a leak.
	gauge("go_goroutines", float64(runtime.NumGoroutine()))
	gauge("go_gc_heap_live_bytes", heapLive())
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		gauge("process_open_fds", float64(len(fds)-1)) // without the one that read them
	}
	set.WritePrometheus(w)
}

// heapLive is what the last garbage collection found in use: unlike the size of the heap, it does not depend on how
// long ago that was.
func heapLive() float64 {
	s := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	runtimemetrics.Read(s)
	if s[0].Value.Kind() != runtimemetrics.KindUint64 {
		return 0
	}
	return float64(s[0].Value.Uint64())
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// label quotes a label's value; the text format knows these escapes and no others.
func label(s string) string {
	return `"` + labelEscapes.Replace(strings.ToValidUTF8(s, "?")) + `"`
}
