package swarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/swarm/lease"
	"updraft/swarm/limit"
)

// Object is a table of blobs under one name.
type Object struct {
	ID       [32]byte   // names the table: made from it, so that it is the same everywhere
	Sums     [][32]byte // sha2-256 of each blob; 1 to wire.MaxBlobs; kept, not copied: do not change it
	Sizes    []uint32   // bytes of each blob, 1 to 1 MiB; kept, not copied
	Priority int        // higher goes first, in both directions
}

// Blobs is what a device has of one object. The swarm calls it from several goroutines at once.
type Blobs interface {
	// Has reports whether blob i is here. It is asked once for each blob, when the object is opened.
	Has(i int) bool
	// Get returns blob i, in buf if that is large enough. The swarm checks the digest before it sends the bytes;
	// an error or a wrong digest means that the device no longer has the blob.
	Get(i int, buf []byte) ([]byte, error)
	// Put stores blob i, whose digest was checked. It is called once for each blob unless it fails; data is valid
	// during the call only. While it runs, the sender of the blob waits. After an error the blob is asked for again.
	Put(i int, data []byte) error
}

// Dropper is an optional ability of Blobs.
type Dropper interface {
	// Dropped tells that blob i was no longer readable as itself; the swarm no longer offers it.
	Dropped(i int)
}

// OpenOptions says what a device means to do with an object.
type OpenOptions struct {
	Receive bool // it wants the blobs it lacks: push them to it, ask for the others
	Produce bool // it makes the blobs from what it has: share the work of injecting with the other producers
}

// Profile is what a device says of itself to every member.
type Profile struct {
	Rank lease.Rank // claim to the uplink; Up counts seconds, at the time of Announce
	Node []byte     // ≤ 16 KiB, not looked at
}

// Identity is what a credential proves.
type Identity struct {
	Name, Type string
	Roles      []string
	Gateway    bool // it may rank as a gateway; of others, that claim is not believed
}

// Member is a device with which a connection is up.
type Member struct {
	ID                peer.ID
	Name, Type        string
	Roles             []string
	Addr              string // address of the connection, as a multiaddr
	Profile           Profile
	Since             time.Time // when it was admitted
	BytesIn, BytesOut int64     // payload of blobs, received from and sent to it, as it was on the wire
	Dup               int64     // bytes received from it that were here already
}

// Config is what a swarm needs. Host and Admit are required.
type Config struct {
	Host host.Host // its connections are the swarm's to close; not closed itself
	Gate *Gate     // the one given to the host; nil: shunned peers are refused only after the handshake

	Credential []byte                                                // ≤ 4 KiB, sent to every peer that we meet; see SetCredential
	Admit      func(id peer.ID, credential []byte) (Identity, error) // decides who is a member; concurrent calls

	// Files answers [Swarm.Request] of members; os.ErrNotExist for what is unknown. At most 4 MiB. nil: nothing is served.
	Files func(name string) ([]byte, error)
	// Call answers [Swarm.Invoke] of members; the text of its error is sent. At most 4 MiB. nil: nothing is served.
	Call func(ctx context.Context, from peer.ID, method string, arg []byte) ([]byte, error)

	// Blamed is told of a member that was dropped for what it sent, and for how long it is shunned: why is ErrWrongBlob
	// or ErrBreach; and of a peer that has the key of a member: ErrTwin. nil: nobody is told.
	Blamed func(id peer.ID, ident Identity, why error, shunned time.Duration)

	// Woke is called when the machine was suspended meanwhile: its connections may be dead, and others may have gone on
	// with what it was doing. nil: nobody is told.
	Woke func()

	Upload, Download *limit.Limiter // payload of blobs; nil: unlimited
	Log              *slog.Logger   // nil: silent
	MaxPeers         int            // members at once; 0: 96
	Settle           time.Duration  // from New, this device does not claim the uplink for this long, so that members can be found; 0: 1 s, negative: none
}

// DefaultMaxPeers is the number of members that a device keeps; a gateway keeps [GatewayMaxPeers].
const (
	DefaultMaxPeers = 96
	GatewayMaxPeers = 256
)

// Errors.
var (
	ErrNotMember = errors.New("swarm: not a member")
	ErrClosed    = errors.New("swarm: closed")
	ErrListen    = errors.New("swarm: cannot listen")
	ErrUnknown   = errors.New("swarm: object is not open")
	ErrBusy      = errors.New("swarm: peer is busy")
	ErrTooLarge  = errors.New("swarm: larger than its limit")
	ErrWrongBlob = errors.New("swarm: bytes that are not the blob they were sent as")
	ErrBreach    = errors.New("swarm: peer breaks the protocol")
	ErrTwin      = errors.New("swarm: two devices have the same key")
	// ErrLeaseInUse says that this device already holds the lease, or waits for it, in another call.
	ErrLeaseInUse = errors.New("swarm: lease already wanted here")
)

// HeldError says that another device holds the uplink lease.
type HeldError struct{ By peer.ID }

func (e *HeldError) Error() string { return fmt.Sprintf("swarm: uplink held by %s", e.By) }

// RemoteError is an error that a member answered.
type RemoteError struct{ Text string }

func (e *RemoteError) Error() string { return "swarm: peer answered: " + e.Text }

// Counters count since the swarm was made.
type Counters struct {
	BytesIn, BytesOut int64 // payload of blobs, as it was on the wire
	BlobsIn, BlobsOut int64
	PackedIn          int64 // blobs received compressed; part of BlobsIn
	PackedOut         int64 // and sent so
	Saved             int64 // bytes by which what was received and sent so was shorter
	DupBytes          int64 // received although here already; part of BytesIn
	DupBlobs          int64
	BadBlobs          int64 // received with a wrong digest
	Relayed           int64 // blobs received with the order to pass them on
	Redelegated       int64 // blobs given to another relay, since the first did not acknowledge
	Pulled            int64 // blobs asked for
	Flow              int64 // bytes seen to come from members that are to send something, as they come; looked at twice a second
	Shunned           int64 // members dropped for what they sent
	MessagesIn        int64 // control frames received
	ControlIn         int64 // bytes of control frames
	ControlOut        int64
}
