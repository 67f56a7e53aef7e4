package testnet

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"updraft/node/report"
	"updraft/testnet/netns"
)

// Timing of a rollout.
const (
	lookEvery    = 20 * time.Millisecond  // at what is in service
	sampleEvery  = 300 * time.Millisecond // at status and usage
	askTimeout   = 5 * time.Second
	quietAfter   = 300 * time.Millisecond // for counters to come to rest
	restartAfter = 2 * time.Second
	// DefaultTimeout bounds a rollout.
	DefaultTimeout = 10 * time.Minute
)

// ErrTimeout reports a rollout that did not reach every device in time.
var ErrTimeout = errors.New("testnet: not every device came to the release in time")

// ErrUnsupported reports that this machine or user cannot make network namespaces.
var ErrUnsupported = netns.ErrUnsupported

// RolloutOptions configure a rollout. The zero value is usable.
type RolloutOptions struct {
	// KillAt kills devices as a power cut would when the uplink has carried this
	// share of what is needed, and starts them again 2 s later. 0: never.
	KillAt float64
	Kill   Victims
	// Timeout ends the rollout. 0: DefaultTimeout.
	Timeout time.Duration
	// Progress is called about three times a second, and once at the end.
	Progress func(Snapshot)
}

// Victims says which devices a rollout kills.
type Victims int

// KillHolder is the device that downloads, KillOther one that does not, KillAll is
// every device.
const (
	KillHolder Victims = iota
	KillOther
	KillAll
)

// Snapshot is a moment of a rollout.
type Snapshot struct {
	Version string
	Elapsed time.Duration
	Uplink  int64 // bytes since the start of the rollout
	Needed  int64
	Devices []State
}

// State is what a device does at a moment.
type State struct {
	Name   string
	Role   string
	State  string // as its status says, or "done", or "down"
	Have   int64  // bytes
	Total  int64
	Done   bool
	Holder bool
}

// rollout is one under way.
type rollout struct {
	s      *Site
	r      *Release
	o      RolloutOptions
	start  time.Time
	needed int64
	down0  int64
	up0    int64
	units  []*unit
	killed []*unit
	at     time.Time      // when they were killed
	tells  sync.WaitGroup // of the goroutines that run tell
}

// unit is a device in a rollout.
type unit struct {
	*node
	base   report.Bytes
	used   usage
	spent  usage // of processes that ended during the rollout
	done   time.Duration
	status report.Status
	down   bool
}

// Rollout tells all running agents to look for a release, now and at once, and
// waits until r is in service on all of them. An error comes with what was
// measured until then.
func (s *Site) Rollout(ctx context.Context, r *Release, o RolloutOptions) (*Rollout, error) {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	x := &rollout{s: s, r: r, o: o}
	if err := x.begin(ctx); err != nil {
		return nil, err
	}
	limit, cancel := context.WithTimeout(ctx, o.Timeout)
	for _, u := range x.units {
		x.tells.Go(func() { x.tell(limit, u) })
	}
	err := x.watch(limit)
	cancel()
	x.tells.Wait()
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w (%s)", ErrTimeout, o.Timeout)
	}
	return x.finish(ctx, err)
}

// begin notes where all counters stand.
func (x *rollout) begin(ctx context.Context) (err error) {
	held := map[string]bool{}
	for _, n := range x.s.nodes {
		if n.proc == nil || n.proc.ended() {
			continue
		}
		u := &unit{node: n, used: n.proc.usage()}
		if u.status, err = n.client.Status(ctx); err != nil {
			return fmt.Errorf("testnet: %s: %w", n.name, err)
		}
		u.base = u.status.Bytes
		for _, r := range u.status.Releases {
			held[r.Version] = true
		}
		x.units = append(x.units, u)
	}
	if len(x.units) == 0 {
		return errors.New("testnet: no agent is running")
	}
	x.needed = x.r.Needed(held)
	x.down0, x.up0, err = x.s.ground.uplink()
	x.start = time.Now()
	return err
}

// tell has an agent look for a release until it knows of this one.
func (x *rollout) tell(ctx context.Context, u *unit) {
	for ctx.Err() == nil {
		res, err := u.client.Check(ctx)
		if err == nil && (res.Target == x.r.Version || res.Current == x.r.Version) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// watch follows the devices until all are done.
func (x *rollout) watch(ctx context.Context) error {
	look, sample := time.NewTicker(lookEvery), time.NewTicker(sampleEvery)
	defer look.Stop()
	defer sample.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-sample.C:
			if err := x.sample(ctx); err != nil {
				return err
			}
		case <-look.C:
			left := 0
			for _, u := range x.units {
				if u.done == 0 && u.version() == x.r.Version {
					u.done = time.Since(x.start)
				}
				if u.done == 0 || u.down {
					left++
				}
			}
			if left == 0 {
				return nil
			}
		}
	}
}

// sample reads status and usage of all devices, kills and restarts one when it is
// time, and reports.
func (x *rollout) sample(ctx context.Context) error {
	x.ask(ctx)
	for _, u := range x.units {
		if !u.down && u.proc.ended() {
			return fmt.Errorf("testnet: %s: %w", u.name, errors.Join(errEnded, u.proc.result()))
		}
	}
	if err := x.power(ctx); err != nil {
		return err
	}
	if x.o.Progress != nil {
		x.o.Progress(x.snapshot())
	}
	return nil
}

// ask reads the status of all devices at once.
func (x *rollout) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, u := range x.units {
		if u.down {
			continue
		}
		u.proc.usage()
		wg.Go(func() {
			if st, err := u.client.Status(ctx); err == nil {
				u.status = st
			}
		})
	}
	wg.Wait()
}

// power kills devices and starts them again.
func (x *rollout) power(ctx context.Context) error {
	if x.o.KillAt <= 0 {
		return nil
	}
	if len(x.killed) > 0 {
		return x.restart(ctx)
	}
	if float64(x.s.Uplink()-x.down0) < x.o.KillAt*float64(x.needed) {
		return nil
	}
	for _, u := range x.units {
		switch {
		case u.done > 0 && x.o.Kill != KillAll:
			continue
		case u.status.IsHolder && x.o.Kill == KillOther, !u.status.IsHolder && x.o.Kill == KillHolder:
			continue
		}
		u.proc.kill()
		u.spent, u.used = sub(u.proc.usage(), u.used), usage{}
		u.base, u.status.Bytes = report.Bytes{}, report.Bytes{}
		u.down, x.at = true, time.Now()
		x.killed = append(x.killed, u)
		if x.o.Kill != KillAll {
			break
		}
	}
	return nil
}

// restart starts what was killed, when it is time.
func (x *rollout) restart(ctx context.Context) error {
	if time.Since(x.at) < restartAfter {
		return nil
	}
	for _, u := range x.killed {
		if !u.down {
			continue
		}
		u.down = false
		if err := x.s.agent(u.node, "--poll", "0"); err != nil {
			return err
		}
		x.tells.Go(func() { x.tell(ctx, u) })
	}
	return nil
}

func sub(a, b usage) usage {
	return usage{cpu: a.cpu - b.cpu, peakRSS: a.peakRSS, written: a.written - b.written}
}

func (x *rollout) snapshot() Snapshot {
	s := Snapshot{Version: x.r.Version, Elapsed: time.Since(x.start), Uplink: x.s.Uplink() - x.down0, Needed: x.needed}
	for _, u := range x.units {
		d := State{Name: u.name, Role: u.role, State: u.status.State, Done: u.done > 0, Holder: u.status.IsHolder, Total: x.r.Size}
		if p := u.status.Progress; p != nil {
			d.Have, d.Total = p.Have, p.Total
		}
		switch {
		case u.down:
			d.State = "down"
		case d.Done:
			d.State, d.Have = "done", d.Total
		}
		s.Devices = append(s.Devices, d)
	}
	return s
}

// finish reads all counters and checks what is in service.
func (x *rollout) finish(ctx context.Context, cause error) (*Rollout, error) {
	if cause == nil {
		select {
		case <-ctx.Done():
			cause = ctx.Err()
		case <-time.After(quietAfter):
		}
	}
	down, up, err := x.s.ground.uplink()
	if err != nil {
		cause = errors.Join(cause, err)
	}
	x.ask(context.WithoutCancel(ctx))
	if x.o.Progress != nil {
		x.o.Progress(x.snapshot())
	}
	out := &Rollout{Version: x.r.Version, Devices: len(x.units), Digest: x.r.Digest, UplinkBytes: down - x.down0, UplinkUpBytes: up - x.up0,
		NeededBytes: x.needed, ReleaseBytes: x.r.Size, WithoutBytes: int64(len(x.units)) * (x.r.Full + x.r.Metadata)}
	for _, u := range x.killed {
		out.Killed = append(out.Killed, u.name)
	}
	for _, u := range x.units {
		d, err := u.measure(x.r)
		cause = errors.Join(cause, err)
		out.List = append(out.List, d)
		if !d.Converged {
			continue
		}
		out.Converged++
		out.LastS = max(out.LastS, d.Seconds)
		if out.FirstS == 0 || d.Seconds < out.FirstS {
			out.FirstS = d.Seconds
		}
	}
	if x.needed > 0 {
		out.UplinkRatio = float64(out.UplinkBytes) / float64(x.needed)
	}
	if rate := x.s.cfg.Uplink; rate > 0 {
		out.BoundS = float64(x.needed) / float64(rate)
		out.TimeRatio = out.LastS / out.BoundS
	}
	return out, cause
}

func (u *unit) measure(r *Release) (Device, error) {
	b, used := u.status.Bytes, u.spent
	if !u.down {
		now := sub(u.proc.usage(), u.used)
		used.cpu += now.cpu
		used.written += now.written
		used.peakRSS = max(used.peakRSS, now.peakRSS)
	}
	d := Device{Name: u.name, Role: u.role, Version: u.version(), Seconds: u.done.Seconds(),
		Uplink: b.Uplink - u.base.Uplink, LAN: b.LANIn - u.base.LANIn, LANOut: b.LANOut - u.base.LANOut, Reused: b.Reused - u.base.Reused,
		Written: used.written, CPU: used.cpu, PeakRSS: used.peakRSS, Problems: []string{}}
	for _, p := range u.status.Problems {
		d.Problems = append(d.Problems, p.Code+": "+p.Text)
	}
	if d.Version == "" {
		return d, nil
	}
	var err error
	if d.Digest, err = Digest(filepath.Join(u.data(), "current", artifact)); err != nil {
		return d, err
	}
	d.Converged = d.Version == r.Version && d.Digest == r.Digest
	return d, nil
}
