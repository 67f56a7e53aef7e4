package testnet

// Result is a rehearsal or a demonstration: one rollout or several, and their sums.
type Result struct {
	Devices      int       `json:"devices"`       // the gateway counts as one
	Converged    int       `json:"converged"`     // devices with the last release in service, its digest checked
	UplinkBytes  int64     `json:"uplink_bytes"`  // counted at the origin's link, towards the site
	NeededBytes  int64     `json:"needed_bytes"`  // packs, patches and metadata that had to come
	ReleaseBytes int64     `json:"release_bytes"` // of the releases as they are installed
	WithoutBytes int64     `json:"without_bytes"` // every device downloading every release, compressed
	FirstS       float64   `json:"first_s"`       // seconds until the first device had it, summed
	LastS        float64   `json:"last_s"`        // seconds until the last device had it, summed
	BoundS       float64   `json:"bound_s"`       // needed bytes / uplink rate
	UplinkRate   int64     `json:"uplink_rate"`   // bytes per second; 0: not limited
	Ground       string    `json:"ground"`        // loopback or netns
	List         []Device  `json:"list"`          // devices with bytes by source
	Rollouts     []Rollout `json:"rollouts"`
}

// Rollout is how one release came to the devices.
type Rollout struct {
	Version       string   `json:"version"`
	Devices       int      `json:"devices"`
	Converged     int      `json:"converged"`
	Digest        string   `json:"digest"`          // of what was published; see Digest
	UplinkBytes   int64    `json:"uplink_bytes"`    // towards the site
	UplinkUpBytes int64    `json:"uplink_up_bytes"` // away from it
	NeededBytes   int64    `json:"needed_bytes"`
	ReleaseBytes  int64    `json:"release_bytes"`
	WithoutBytes  int64    `json:"without_bytes"`
	UplinkRatio   float64  `json:"uplink_ratio"` // uplink bytes / needed bytes
	FirstS        float64  `json:"first_s"`
	LastS         float64  `json:"last_s"`
	BoundS        float64  `json:"bound_s"`
	TimeRatio     float64  `json:"time_ratio"`       // last / bound; 0 without a limit
	Killed        []string `json:"killed,omitempty"` // devices that were killed on the way
	List          []Device `json:"list"`
}

// Device is what a rollout was for one device.
type Device struct {
	Name      string   `json:"name"`
	Role      string   `json:"role"`
	Version   string   `json:"version"` // in service at the end
	Digest    string   `json:"digest"`  // of what is in service, hashed by the testnet
	Converged bool     `json:"converged"`
	Seconds   float64  `json:"seconds"` // until it was in service
	Uplink    int64    `json:"uplink"`  // bytes from the origin
	LAN       int64    `json:"lan"`     // bytes from other devices
	LANOut    int64    `json:"lan_out"` // bytes to other devices
	Reused    int64    `json:"reused"`  // bytes from what it held
	Written   int64    `json:"written"` // bytes the process wrote to the disk
	CPU       float64  `json:"cpu_s"`
	PeakRSS   int64    `json:"peak_rss"` // bytes, since the process started
	Problems  []string `json:"problems"`
}

// Sum joins rollouts of one site into a Result.
func Sum(ground string, rate int64, rollouts []Rollout) *Result {
	r := &Result{Ground: ground, UplinkRate: rate, Rollouts: rollouts, List: []Device{}}
	at := map[string]int{}
	for _, o := range rollouts {
		r.Devices, r.Converged = o.Devices, o.Converged
		r.UplinkBytes += o.UplinkBytes
		r.NeededBytes += o.NeededBytes
		r.ReleaseBytes += o.ReleaseBytes
		r.WithoutBytes += o.WithoutBytes
		r.FirstS += o.FirstS
		r.LastS += o.LastS
		r.BoundS += o.BoundS
		for _, d := range o.List {
			i, ok := at[d.Name]
			if !ok {
				at[d.Name] = len(r.List)
				r.List = append(r.List, d)
				continue
			}
			s := &r.List[i]
			sum := *s
			*s = d
			s.Seconds += sum.Seconds
			s.Uplink += sum.Uplink
			s.LAN += sum.LAN
			s.LANOut += sum.LANOut
			s.Reused += sum.Reused
			s.Written += sum.Written
			s.CPU += sum.CPU
			s.PeakRSS = max(s.PeakRSS, sum.PeakRSS)
		}
	}
	return r
}
