package report

import (
	"bytes"
	"fmt"
	"net/http"

	"github.com/VictoriaMetrics/metrics"
)

// metricsHandler answers with the status as Prometheus text. The set is made for
// each answer: nothing is registered globally.
func metricsHandler(b Backend) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		s := b.Status()
		set := metrics.NewSet()
		for source, n := range map[string]int64{"uplink": s.Bytes.Uplink, "lan": s.Bytes.LANIn, "reused": s.Bytes.Reused} {
			set.NewCounter(fmt.Sprintf("updraft_received_bytes_total{source=%q}", source)).Set(uint64(max(n, 0)))
		}
		set.NewCounter("updraft_lan_sent_bytes_total").Set(uint64(max(s.Bytes.LANOut, 0)))
		set.NewCounter("updraft_written_bytes_total").Set(uint64(max(s.Bytes.Written, 0)))
		gauge := func(name string, v float64) { set.NewGauge(name, func() float64 { return v }) }
		gauge("updraft_peers", float64(s.Peers))
		gauge("updraft_problems", float64(len(s.Problems)))
		holder := 0.0
		if s.IsHolder {
			holder = 1
		}
		gauge("updraft_uplink_holder", holder)
		progress := 1.0
		if s.Progress != nil && s.Progress.Total > 0 {
			progress = float64(s.Progress.Have) / float64(s.Progress.Total)
		}
		gauge("updraft_update_progress_ratio", progress)
		gauge(fmt.Sprintf("updraft_info{version=%q,target=%q,state=%q,role=%q}", s.Current, s.Target, s.State, s.Role), 1)
		var buf bytes.Buffer
		set.WritePrometheus(&buf)
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = w.Write(buf.Bytes()) // the client has gone: nobody to tell
	}
}
