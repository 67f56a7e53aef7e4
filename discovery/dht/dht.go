package dht

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"updraft/discovery"

	"github.com/ipfs/go-cid"
	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/multiformats/go-multihash"
)

// Name is the name of the source, as in its events.
const Name = "dht"

// Prefix is the protocol prefix: the DHT speaks Prefix + "/kad/1.0.0".
const Prefix protocol.ID = "/updraft"

const (
	defaultFind    = 2 * time.Hour
	defaultProvide = 4 * time.Hour
	maxFound       = 1024             // providers taken from one search
	maxContent     = 256              // digests announced besides the site
	queryTimeout   = time.Minute      // for one search or announcement
	dialTimeout    = 10 * time.Second // for one peer
	introduced     = time.Minute      // how long word of a peer holds that the DHT wants to speak with
	minDial        = 2 * time.Second  // pause between attempts to join
	maxDial        = time.Minute
)

var (
	// ErrAlone is wrapped by what Config.Report gets while no other node is known.
	ErrAlone = errors.New("dht: no other node reached")
	// ErrNotRunning is returned by Find and Provide while Run does not run.
	ErrNotRunning = errors.New("dht: not running")
	// ErrTooMany is returned by Provide when 256 digests are announced already.
	ErrTooMany = errors.New("dht: too many digests announced")
)

// Config configures a Source. Host and SiteKey are required.
type Config struct {
	// Host carries the DHT's streams. It is not closed.
	Host host.Host
	// SiteKey is the site's secret.
	SiteKey [32]byte
	// Bootstrap are nodes that are always tried while no other is known.
	Bootstrap []peer.AddrInfo
	// Remembered, when set, returns further nodes to try: peers of earlier runs
	// and of other sources. Called from several goroutines.
	Remembered func() []peer.AddrInfo
	// Admitted, when set, says whether the fleet has admitted a peer. Others are
	// not served and not kept, and no connection is made: events tell of whom the
	// DHT wants to speak with, bootstrap nodes first, and whoever takes them dials.
	// Called from several goroutines; must not block.
	Admitted func(peer.ID) bool
	// FindEvery is the shortest pause between searches once the site is known.
	// Zero: 2 h.
	FindEvery time.Duration
	// ProvideEvery is the pause between announcements. Zero: 4 h. Records live
	// three times as long.
	ProvideEvery time.Duration
	// Report, when set, is told the state when it changes: an error that wraps
	// ErrAlone, and nil when other nodes are reached. It is called from Run's
	// goroutine and must not block.
	Report func(err error)
	// Log takes debug records; nil is silent.
	Log *slog.Logger
}

// Source finds the devices of the site in a private DHT. Run runs once at a time;
// the other methods may be called from any goroutine.
type Source struct {
	cfg Config

	mu      sync.Mutex // guards all below
	node    *kad.IpfsDHT
	content map[[32]byte]bool // announced besides the site
}

var _ discovery.Source = (*Source)(nil)

// New makes a source; it starts nothing. It fails without a host.
func New(cfg Config) (*Source, error) {
	if cfg.Host == nil {
		return nil, errors.New("dht: no host")
	}
	if cfg.FindEvery <= 0 {
		cfg.FindEvery = defaultFind
	}
	if cfg.ProvideEvery <= 0 {
		cfg.ProvideEvery = defaultProvide
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Report == nil {
		cfg.Report = func(error) {}
	}
	return &Source{cfg: cfg, content: make(map[[32]byte]bool)}, nil
}

// Name returns "dht".
func (s *Source) Name() string { return Name }

// Run joins the DHT, announces this device and finds the others; see
// [discovery.Source]. It fails only if the node cannot be made at all. While no
// other node is reached it reports ErrAlone and keeps trying.
func (s *Source) Run(ctx context.Context, self func() peer.AddrInfo, events chan<- discovery.Event) error {
	gated := newGate(s.cfg.Host, s.cfg.Admitted)
	r := &run{cfg: s.cfg, host: gated, self: self, events: events, content: s.digests, held: make(map[peer.ID]time.Time)}
	if s.cfg.Admitted != nil {
		gated.introduce = r.want
	}
	node, err := kad.New(gated, s.options()...)
	if err != nil {
		return fmt.Errorf("dht: %w", err)
	}
	s.setNode(node)
	defer func() {
		s.setNode(nil)
		err := node.Close()
		gated.close()
		if err != nil {
			s.cfg.Log.Debug("dht close", "err", err)
		}
	}()
	r.node = node
	if !r.join(ctx) {
		return nil
	}
	r.loop(ctx)
	return nil
}

func (s *Source) setNode(n *kad.IpfsDHT) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.node = n
}

func (s *Source) running() (*kad.IpfsDHT, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node == nil {
		return nil, ErrNotRunning
	}
	return s.node, nil
}

func (s *Source) digests() [][32]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.content))
}

func (s *Source) options() []kad.Option {
	opts := []kad.Option{
		kad.ProtocolPrefix(Prefix), kad.Mode(kad.ModeServer), kad.DisableValues(),
		kad.BootstrapPeersFunc(s.bootstrap),
		kad.DisableAutoRefresh(), // run refreshes it before some searches
		kad.AddressFilter(reachable),
		kad.ProviderManagerOpts(
			records.ProvideValidity(3*s.cfg.ProvideEvery),
			records.ProviderAddrTTL(3*s.cfg.ProvideEvery),
		),
	}
	if admitted := s.cfg.Admitted; admitted != nil {
		opts = append(opts, kad.RoutingTableFilter(func(_ any, p peer.ID) bool { return admitted(p) }))
	}
	return opts
}

// bootstrap returns whom to try first, without this device.
func (s *Source) bootstrap() []peer.AddrInfo {
	list := slices.Clone(s.cfg.Bootstrap)
	if s.cfg.Remembered != nil {
		list = append(list, s.cfg.Remembered()...)
	}
	return slices.DeleteFunc(list, func(p peer.AddrInfo) bool { return p.ID == s.cfg.Host.ID() })
}

// Provide announces that this device has the content with the digest, now and
// again every ProvideEvery, until Withdraw. Without another node in reach it
// waits for one until ctx ends; the announcement is then made up for later. At
// most 256 digests are announced (ErrTooMany).
func (s *Source) Provide(ctx context.Context, digest [32]byte) error {
	s.mu.Lock()
	full := len(s.content) >= maxContent && !s.content[digest]
	if !full {
		s.content[digest] = true
	}
	s.mu.Unlock()
	if full {
		return ErrTooMany
	}
	node, err := s.running()
	if err != nil {
		return err
	}
	if err := populated(ctx, node); err != nil {
		return fmt.Errorf("%w: %w", ErrAlone, err)
	}
	return announce(ctx, node, contentKey(s.cfg.SiteKey, digest))
}

// Withdraw stops announcing the digest; records already made run out.
func (s *Source) Withdraw(digest [32]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.content, digest)
}

// Find returns up to limit devices that announced the digest, without this one.
func (s *Source) Find(ctx context.Context, digest [32]byte, limit int) ([]peer.AddrInfo, error) {
	node, err := s.running()
	if err != nil {
		return nil, err
	}
	var out []peer.AddrInfo
	err = search(ctx, node, contentKey(s.cfg.SiteKey, digest), func(p peer.AddrInfo) bool {
		out = append(out, p)
		return len(out) < limit
	})
	return out, err
}

// siteCID is what the devices of a site provide.
func siteCID(key [32]byte) cid.Cid { return keyed(key, []byte("dht")) }

// contentKey is what the holders of a digest provide.
func contentKey(key, digest [32]byte) cid.Cid {
	return keyed(key, append([]byte("release"), digest[:]...))
}

func keyed(key [32]byte, what []byte) cid.Cid {
	mac := hmac.New(sha256.New, key[:])
	mac.Write(what)
	mh, err := multihash.Encode(mac.Sum(nil), multihash.SHA2_256)
	if err != nil {
		panic(err) // a known hash of the right length
	}
	return cid.NewCidV1(cid.Raw, mh)
}

// reachable drops loopback addresses unless there are no others.
func reachable(addrs []ma.Multiaddr) []ma.Multiaddr {
	out := slices.DeleteFunc(slices.Clone(addrs), manet.IsIPLoopback)
	if len(out) == 0 {
		return addrs
	}
	return out
}

// addresses returns where p may be reached: at what is said of it, else at what the host
// knows, since the library puts there whom other nodes name.
func addresses(h host.Host, p peer.AddrInfo) []ma.Multiaddr {
	if out := reachable(p.Addrs); len(out) > 0 {
		return out
	}
	return reachable(h.Peerstore().Addrs(p.ID))
}

func jitter(d time.Duration) time.Duration { return d + rand.N(max(1, d/2)) }
