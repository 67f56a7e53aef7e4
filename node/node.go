package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"updraft/delta/release"
	"updraft/discovery"
	"updraft/discovery/mdns"
	"updraft/node/identity"
	"updraft/node/install"
	"updraft/node/report"
	"updraft/swarm"
	"updraft/swarm/limit"
	"updraft/swarm/origin"
)

// ErrInUse reports a data directory that another agent uses.
var ErrInUse = errors.New("node: the data directory is in use by another agent")

// Node is one device. Make it with New; Run runs it once.
type Node struct {
	cfg      Config
	log      *slog.Logger
	enr      *identity.Enrollment
	id       peer.ID
	paths    paths
	start    time.Time
	enrolled time.Time // when the certificate in the enrollment was signed
	unlock   func()    // gives up the data directory
	gw       bool      // ranks as a gateway: configured and certified

	trust   *release.Trust
	trustMu sync.Mutex // serialises what brings the metadata up to date; nobody is asked for anything while it is held
	origin  *origin.Client
	windows windows
	dir     *install.Dir
	inst    install.Installer
	host    host.Host
	sw      *swarm.Swarm
	reg     *registry
	lib     *library
	table   *discovery.Table
	checker *checker
	status  *statusBoard

	profMu   sync.Mutex // guards profiles
	profiles map[peer.ID]readProfile

	tellMu sync.Mutex // guards said; held while members are told, so that the last word is the newest
	said   []byte     // the profile they have

	mu       sync.Mutex // guards all below
	target   *target
	fresh    bool          // target is what the origin said after this start
	retarget chan struct{} // closed when target or fresh changes
	settling settling      // neighbours can be known again after it
	relink   chan struct{} // closed when settling begins
	upd      *update       // under way
	served   *update       // done, its patches still served
	uplink   int
	tried    time.Time // when uplink was found out
	whole    int64     // version of the metadata of which everything is here, as announced
	judged   int64     // version of those that speak of a release that is here, and is not for this device
	refused  []*refusedRelease
	revoked  identity.Revocations
	certs    map[peer.ID]*identity.Cert // of all peers admitted so far, the latest of each
	cert     certificate                // of this device

	renewMu  sync.Mutex        // serialises changes of cert, here and on disk
	renewals map[peer.ID]claim // renewals looked for at the origin; of the look under way
}

// windows are the times at which the uplink may be used; see limit.Schedule.
type windows interface {
	Open(t time.Time) bool
	Next(t time.Time) (next time.Time, ok bool)
}

// target is the release the channel names.
type target struct {
	m      *release.Manifest
	raw    []byte
	digest [32]byte
}

// New prepares a device: it takes the data directory for itself, or returns ErrInUse,
// reads and checks everything on disk, and opens the listening sockets. It starts
// nothing; call Close if Run is not called.
func New(cfg Config) (*Node, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	enr, err := identity.ReadEnrollment(cfg.Enrollment)
	if err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	n := &Node{cfg: cfg, log: log, enr: enr, paths: paths{cfg.Data}, start: time.Now(),
		retarget: make(chan struct{}), relink: make(chan struct{}), certs: make(map[peer.ID]*identity.Cert)}
	n.status = newStatusBoard()
	n.checker = newChecker(n)
	if err := makeData(cfg.Data); err != nil {
		return nil, fmt.Errorf("node: make data directory: %w", err)
	}
	if n.unlock, err = lockDir(cfg.Data); err != nil { // what is damaged there is mended below
		return nil, err
	}
	if err := n.open(); err != nil {
		n.unlock()
		return nil, err
	}
	return n, nil
}

// open reads what is on disk and opens what Close closes.
func (n *Node) open() (err error) {
	cfg := &n.cfg
	if err := n.paths.make(); err != nil {
		return err
	}
	if n.windows, err = limit.ParseSchedule(cfg.UplinkWindows); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if n.trust, err = release.OpenTrust(filepath.Join(cfg.Data, "trust"), n.enr.Root); err != nil {
		return fmt.Errorf("node: trust, which begins at the root in %s: %w", cfg.Enrollment, err)
	}
	if err = n.loadCertificate(); err != nil {
		return err
	}
	if err := n.trust.Advance(n.enrolled); err != nil { // not of a renewal: whoever has the authority's key signs any time
		n.log.Warn("time of enrollment not kept", "err", err)
	}
	if err = n.loadRevocations(); err != nil {
		return err
	}
	n.judgeRole()
	if n.dir, err = install.Open(cfg.Data); err != nil {
		return err
	}
	if n.inst, err = n.installer(); err != nil {
		return err
	}
	if err := n.openOrigin(); err != nil {
		return err
	}
	if err := n.openSwarm(); err != nil {
		return err
	}
	n.reg = newRegistry(n.sw)
	n.lib = newLibrary(n.paths, n.reg, n.log)
	return nil
}

func (n *Node) openOrigin() error {
	urls := n.enr.Origins
	if len(n.cfg.Origins) > 0 {
		urls = n.cfg.Origins
	}
	if len(urls) == 0 {
		n.uplink = uplinkBad
		return nil // a device that lives off its neighbours
	}
	c, err := origin.NewClient(urls, origin.ClientOptions{Limiter: limit.New(n.cfg.UplinkRate), Log: n.log})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	n.origin = c
	return nil
}

func (n *Node) openSwarm() error {
	key, id, err := n.enr.PrivateKey()
	if err != nil {
		return err
	}
	n.id = id
	gate := new(swarm.Gate)
	h, err := swarm.NewHost(swarm.HostConfig{Key: key, Listen: n.cfg.Listen, Gateway: n.gw, Gate: gate, Identify: n.cfg.DHT})
	if err != nil {
		return fmt.Errorf("node: open host: %w", err)
	}
	n.host = h
	most := swarm.DefaultMaxPeers
	if n.gw {
		most = swarm.GatewayMaxPeers
	}
	n.sw, err = swarm.New(swarm.Config{
		Host: h, Gate: gate, Credential: n.cert.raw, Admit: n.admit, Files: n.files, Call: n.call,
		Blamed: n.blamed, Woke: n.netChanged, Upload: limit.New(n.cfg.LANRate), Log: n.log, MaxPeers: most,
	})
	if err != nil {
		return errors.Join(err, h.Close())
	}
	return nil
}

// Close releases what New opened. Run does so by itself.
func (n *Node) Close() error {
	err := n.host.Close()
	if n.origin != nil {
		n.origin.Close()
	}
	n.unlock()
	return err
}

// ID returns the device's peer ID.
func (n *Node) ID() peer.ID { return n.id }

// Run runs the device until ctx ends, or with Config.Once until the channel's
// newest release is in service. It returns after everything it started has
// ended. The error is nil when ctx ended it.
func (n *Node) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, n.Close()) }()
	sources, err := n.sources()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.sw.Run(ctx) })
	if err := n.recover(); err != nil {
		stop()
		return errors.Join(err, g.Wait())
	}
	n.takeStock(ctx)
	n.announce()
	n.setState(stateIdle)
	if m, raw, err := n.trust.Known(n.enr.Channel, n.enr.Type); err == nil {
		n.setTarget(m, raw)
		n.sweepStart(m)
	}
	n.table = discovery.NewTable(discovery.TableConfig{Notify: n.found, Report: func(source string, err error) { n.problem(problemDiscovery, source, err) }, Log: n.log})
	n.begun()
	g.Go(func() error { return n.table.Run(ctx, n.self, sources...) })
	g.Go(func() error { return report.Serve(ctx, n.cfg.Data, n, n.log) })
	if n.cfg.Metrics != "" {
		g.Go(func() error {
			// The agent's work does not depend on being watched.
			n.problem(problemMetrics, n.cfg.Metrics, report.ServeMetrics(ctx, n.cfg.Metrics, n.cfg.MetricsToken, n, n.log))
			return nil
		})
	}
	g.Go(func() error { return n.checker.run(ctx) })
	g.Go(func() error { return n.follow(ctx) })
	g.Go(func() error { return n.poll(ctx) })
	g.Go(func() error {
		err := n.updates(ctx)
		if n.cfg.Once || err != nil {
			stop()
		}
		return err
	})
	g.Go(func() error { return n.beat(ctx) })
	if !n.cfg.MDNS { // which looks at the interfaces itself
		g.Go(func() error {
			mdns.WatchLinks(ctx, n.cfg.Interfaces, n.netChanged)
			return nil
		})
	}
	err = g.Wait()
	n.keepPatches(nil)
	return errors.Join(err, n.lib.close())
}

// recover takes up what is on disk: installed releases become seeds.
func (n *Node) recover() error {
	if err := n.dir.Recover(func(err error) { n.problem(problemDisk, "leftovers", err) }); err != nil {
		return err
	}
	n.problem(problemDisk, "refused releases", n.loadRefused())
	return n.lib.load(n.dir.Path, func(err error) { n.problem(problemDisk, "installed release", err) })
}

// beat renews what others know of this device, and looks whose certificate has ended. Others hear of what has changed by
// itself, such as its room; only while an update is under way do they hear from it in any case: said by everybody to
// everybody, that would be most of what an idle site sends.
func (n *Node) beat(ctx context.Context) error {
	for sleep(ctx, jitter(time.Minute)) {
		n.mu.Lock()
		busy := n.upd != nil
		n.mu.Unlock()
		n.tell(busy)
		n.expelEnded(ctx)
	}
	return nil
}

// found is told by discovery.
func (n *Node) found(e discovery.Event) {
	if e.Gone {
		n.sw.Forget(e.Peer.ID)
		return
	}
	n.sw.Connect(e.Peer)
}

func (n *Node) self() peer.AddrInfo {
	return peer.AddrInfo{ID: n.id, Addrs: n.host.Addrs()}
}

func (n *Node) setUplink(ok bool) {
	v := uplinkBad
	if ok {
		v = uplinkOK
	}
	n.mu.Lock()
	changed := n.uplink != v
	n.uplink, n.tried = v, time.Now()
	n.mu.Unlock()
	if changed {
		n.announce()
	}
}

// reach returns how far this device gets to the origin. A failure counts for a while
// only: where others bring everything, nobody would learn that it is over.
func (n *Node) reach() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.uplink == uplinkBad && n.origin != nil && time.Since(n.tried) > reachAgain {
		return uplinkUnknown
	}
	return n.uplink
}

// uplinkOpen waits for a window in which the origin may be used.
func (n *Node) uplinkOpen(ctx context.Context) error {
	for n.origin == nil || !n.windows.Open(time.Now()) {
		d := time.Minute
		if n.origin != nil {
			if next, ok := n.windows.Next(time.Now()); ok {
				d = min(d, time.Until(next))
			}
		}
		if !sleep(ctx, max(d, time.Second)) {
			return ctx.Err()
		}
	}
	return nil
}

// makeData makes the data directory, if there is none, as one that all may enter, whatever the
// umask: hooks may run as another user, as may the application. What is secret in it is shut
// to others by itself.
func makeData(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(dir, 0o755)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// lockDir makes sure that one agent uses the directory.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("node: open lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", ErrInUse, dir), f.Close())
	}
	return func() { // by name: a hook that is being started has the file open, too, until it is executed
		_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
		f.Close()
	}, nil
}

// jitter spreads d by a tenth, so that devices do not move in step.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d))
}

// Addrs returns the addresses at which the device listens, as multiaddrs with
// its peer ID.
func (n *Node) Addrs() []string {
	ai := n.self()
	as, err := peer.AddrInfoToP2pAddrs(&ai)
	if err != nil {
		return nil
	}
	var out []string
	for _, a := range as {
		out = append(out, a.String())
	}
	return out
}
