package dht

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
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
	queryTimeout   = time.Minute      // for one search or announcement
	dialTimeout    = 10 * time.Second // for one peer
	introduced     = time.Minute      // how long word of a peer holds that the DHT wants to speak with
	minDial        = 2 * time.Second  // pause between attempts to join
	maxDial        = time.Minute
)

// ErrAlone is wrapped by what Config.Report gets while no other node is known.
var ErrAlone = errors.New("dht: no other node reached")

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

// Source finds the devices of the site in a private DHT. Run runs once at a time.
type Source struct {
	cfg Config
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
	return &Source{cfg}, nil
}

// Name returns "dht".
func (s *Source) Name() string { return Name }

// Run joins the DHT, announces this device and finds the others; see
// [discovery.Source]. It fails only if the node cannot be made at all. While no
// other node is reached it reports ErrAlone and keeps trying.
func (s *Source) Run(ctx context.Context, self func() peer.AddrInfo, events chan<- discovery.Event) error {
	r, err := s.begin(self, events)
	if err != nil {
		return err
	}
	defer r.end()
	if r.join(ctx) {
		r.loop(ctx)
	}
	return nil
}

func (s *Source) begin(self func() peer.AddrInfo, events chan<- discovery.Event) (*run, error) {
	r := &run{cfg: s.cfg, host: newGate(s.cfg.Host, s.cfg.Admitted), self: self, events: events, held: make(map[peer.ID]time.Time)}
	if s.cfg.Admitted != nil {
		r.host.introduce = r.want
	}
	var err error
	if r.node, err = kad.New(r.host, s.options()...); err != nil {
		return nil, fmt.Errorf("dht: %w", err)
	}
	return r, nil
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

// siteCID is what the devices of a site provide.
func siteCID(key [32]byte) cid.Cid {
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte("dht"))
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
