// Package wire is the byte form of everything that members of a site say to each other.
//
// A control stream carries frames, one after the other:
//
//	uvarint length of the rest | type (1 byte) | body (length-1 bytes)
//
// A blob stream carries blobs, one after the other:
//
//	object ID (32) | index uint32 LE | length uint32 LE | flags (1) | [packed length uint32 LE] | bytes
//
// Request streams (file, call) carry one request and one answer, see [AppendRequest] and [AppendAnswer].
//
// The package only encodes and decodes: it has no connection, no clock and no state. What it guarantees is that a
// decoder never allocates more than a length that it has first compared with a limit named here, never reads past the
// slice it was given, and accepts one encoding of each message only. Decoded slices alias the input where that is said.
package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Version is the version of the protocol spoken by this package; it is part of the hello.
const Version = 1

// FeaturePacked is the bit of a hello that says: blobs may come as zstd frames.
const FeaturePacked uint64 = 1 << 0

// Limits of what may be said, in bytes unless named otherwise.
const (
	MaxCredential = 4 << 10  // credential in a hello
	MaxHello      = 5 << 10  // frame of a hello
	MaxProfile    = 16 << 10 // opaque part of a profile
	MaxBlobs      = 1 << 16  // blobs in one object
	MaxBlob       = 1 << 20  // length of one blob
	MaxFrame      = 24 << 10 // a frame of the control stream: a profile, or a bitmap of MaxBlobs bits, with room
	MaxIndexes    = 4096     // indexes in one Have, Get, Cancel or Nack
	MaxName       = 512      // name in a request
	MaxArgument   = 64 << 10 // argument of a call
	MaxAnswer     = 4 << 20  // answer to a request
	MaxError      = 1 << 10  // text of an answer that is an error
)

// Type says what a control frame carries.
type Type byte

// Types of control frames. A receiver ignores types it does not know, so that later versions can add some.
const (
	TypeHello    Type = 1 // Hello, the first frame in each direction
	TypeAdmit    Type = 2 // Admit, ends the handshake
	TypeProfile  Type = 3 // Profile
	TypeInterest Type = 4 // Interest
	TypeRetract  Type = 5 // Retract: an object ID
	TypeHave     Type = 6 // Indexes
	TypeGet      Type = 7 // Indexes
	TypeCancel   Type = 8 // Indexes
	TypeNack     Type = 9 // Indexes
	TypeLease    Type = 10
	TypePing     Type = 11 // no body: say something
	TypePong     Type = 12 // no body: the answer
	TypeRumor    Type = 13 // Rumor
)

// ErrMalformed says that bytes are not a message of this protocol.
var ErrMalformed = errors.New("wire: malformed message")

// ErrTooLarge says that a declared length is above the limit for it.
var ErrTooLarge = errors.New("wire: message above its limit")

func malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

// AppendFrame appends a control frame with the given body.
func AppendFrame(b []byte, t Type, body []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(body))+1)
	b = append(b, byte(t))
	return append(b, body...)
}

// ReadFrame reads one control frame of at most limit bytes after its length. The body uses buf when it is large
// enough and is valid until buf is used again. io.EOF is returned only between frames.
func ReadFrame(r *bufio.Reader, limit int, buf []byte) (Type, []byte, error) {
	n, err := readUvarint(r)
	if err != nil {
		return 0, nil, err
	}
	if n == 0 {
		return 0, nil, malformed("empty frame")
	}
	if n > uint64(limit) {
		return 0, nil, fmt.Errorf("%w: frame of %d bytes, limit %d", ErrTooLarge, n, limit)
	}
	if uint64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return 0, nil, noEOF(err)
	}
	return Type(buf[0]), buf[1:], nil
}

// readUvarint reads a uvarint of at most 4 bytes in its shortest form.
func readUvarint(r io.ByteReader) (uint64, error) {
	var v uint64
	for i := range 4 {
		c, err := r.ReadByte()
		if err != nil {
			if i > 0 {
				err = noEOF(err)
			}
			return 0, err
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if i > 0 && c == 0 {
				return 0, malformed("length not in its shortest form")
			}
			return v, nil
		}
	}
	return 0, malformed("length of more than 4 bytes")
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Hello is the first message in each direction of a new connection.
//
//	version (1) | features uint64 LE | instance uint64 LE | credential
type Hello struct {
	Version    byte
	Features   uint64 // bits of optional abilities; unknown bits are ignored
	Instance   uint64 // random, drawn at each start of the program: tells a restart from a second connection
	Credential []byte // ≤ MaxCredential
}

// AppendHello appends a hello frame.
func AppendHello(b []byte, h Hello) []byte {
	body := make([]byte, 0, 17+len(h.Credential))
	body = append(body, h.Version)
	body = binary.LittleEndian.AppendUint64(body, h.Features)
	body = binary.LittleEndian.AppendUint64(body, h.Instance)
	return AppendFrame(b, TypeHello, append(body, h.Credential...))
}

// ParseHello parses the body of a hello; the credential aliases it.
func ParseHello(body []byte) (Hello, error) {
	if len(body) < 17 || len(body) > 17+MaxCredential {
		return Hello{}, malformed("hello")
	}
	return Hello{Version: body[0], Features: binary.LittleEndian.Uint64(body[1:]), Instance: binary.LittleEndian.Uint64(body[9:]), Credential: body[17:]}, nil
}

// Verdict is how a side answers a hello.
type Verdict byte

// Verdicts.
const (
	Admitted  Verdict = 1 // spoken by both sides: the connection is a member's
	Refused   Verdict = 2 // the credential does not admit
	Duplicate Verdict = 3 // another connection of the same pair is kept
	Full      Verdict = 4 // no room for another member
)

// AppendVerdict appends the frame that ends a handshake.
func AppendVerdict(b []byte, v Verdict) []byte { return AppendFrame(b, TypeAdmit, []byte{byte(v)}) }

// ParseVerdict parses the body of a verdict.
func ParseVerdict(body []byte) (Verdict, error) {
	if len(body) != 1 || body[0] < byte(Admitted) || body[0] > byte(Full) {
		return 0, malformed("verdict")
	}
	return Verdict(body[0]), nil
}

// Rank is the claim of a device to the uplink, see package lease.
//
//	flags (1: bit 0 gateway) | link class (bits 0 to 3) and reach (bits 4 to 7) | seconds up uint32 LE
type Rank struct {
	Gateway bool
	Link    uint8  // ≤ 15
	Reach   uint8  // ≤ 15
	Up      uint32 // seconds
}

const rankLen = 6

func appendRank(b []byte, r Rank) []byte {
	var f byte
	if r.Gateway {
		f = 1
	}
	return binary.LittleEndian.AppendUint32(append(b, f, r.Link&15|r.Reach<<4), r.Up)
}

func parseRank(b []byte) (Rank, error) {
	if len(b) < rankLen || b[0] > 1 {
		return Rank{}, malformed("rank")
	}
	return Rank{Gateway: b[0] == 1, Link: b[1] & 15, Reach: b[1] >> 4, Up: binary.LittleEndian.Uint32(b[2:])}, nil
}

// Profile is what a device says of itself: rank, then bytes that only the program above understands.
type Profile struct {
	Rank Rank
	Node []byte // ≤ MaxProfile
}

// AppendProfile appends a profile frame.
func AppendProfile(b []byte, p Profile) []byte {
	body := appendRank(make([]byte, 0, rankLen+len(p.Node)), p.Rank)
	return AppendFrame(b, TypeProfile, append(body, p.Node...))
}

// ParseProfile parses the body of a profile; Node aliases it.
func ParseProfile(body []byte) (Profile, error) {
	if len(body) > rankLen+MaxProfile {
		return Profile{}, fmt.Errorf("%w: profile", ErrTooLarge)
	}
	r, err := parseRank(body)
	if err != nil {
		return Profile{}, err
	}
	return Profile{Rank: r, Node: body[rankLen:]}, nil
}

// LeaseKind says what a lease message is, see package lease for the meaning.
type LeaseKind byte

// Kinds of lease messages.
const (
	LeaseWant      LeaseKind = 1
	LeaseUnwant    LeaseKind = 2
	LeaseClaim     LeaseKind = 3
	LeaseHeartbeat LeaseKind = 4
	LeaseObject    LeaseKind = 5
	LeaseYield     LeaseKind = 6
	LeaseConsent   LeaseKind = 7
)

// Lease is a message about the uplink lease.
//
//	kind (1) | epoch uint64 LE | rank (6) | holder (0 to 64 bytes)
type Lease struct {
	Kind   LeaseKind
	Epoch  uint64
	Rank   Rank
	Holder string // peer ID in bytes; only in an objection
}

const maxHolder = 64

// AppendLease appends a lease frame.
func AppendLease(b []byte, m Lease) []byte {
	body := make([]byte, 0, 9+rankLen+len(m.Holder))
	body = append(body, byte(m.Kind))
	body = binary.LittleEndian.AppendUint64(body, m.Epoch)
	body = appendRank(body, m.Rank)
	return AppendFrame(b, TypeLease, append(body, m.Holder...))
}

// ParseLease parses the body of a lease message.
func ParseLease(body []byte) (Lease, error) {
	if len(body) < 9+rankLen || len(body) > 9+rankLen+maxHolder {
		return Lease{}, malformed("lease")
	}
	k := LeaseKind(body[0])
	if k < LeaseWant || k > LeaseConsent {
		return Lease{}, malformed("lease kind")
	}
	r, err := parseRank(body[9:])
	if err != nil {
		return Lease{}, err
	}
	return Lease{Kind: k, Epoch: binary.LittleEndian.Uint64(body[1:]), Rank: r, Holder: string(body[9+rankLen:])}, nil
}

// Rumor is what a holder of the lease said, on its way through members that are not all connected with it.
//
//	kind (1: heartbeat or yield) | epoch uint64 LE | rank (6) | number uint32 LE | holder (1 to 64 bytes)
type Rumor struct {
	Kind   LeaseKind
	Epoch  uint64
	Rank   Rank
	Number uint32 // grows with each that the holder sends
	Holder string
}

const rumorLen = 9 + rankLen + 4

// AppendRumor appends a rumor frame.
func AppendRumor(b []byte, m Rumor) []byte {
	body := make([]byte, 0, rumorLen+len(m.Holder))
	body = append(body, byte(m.Kind))
	body = binary.LittleEndian.AppendUint64(body, m.Epoch)
	body = appendRank(body, m.Rank)
	body = binary.LittleEndian.AppendUint32(body, m.Number)
	return AppendFrame(b, TypeRumor, append(body, m.Holder...))
}

// ParseRumor parses the body of a rumor.
func ParseRumor(body []byte) (Rumor, error) {
	if len(body) <= rumorLen || len(body) > rumorLen+maxHolder {
		return Rumor{}, malformed("rumor")
	}
	k := LeaseKind(body[0])
	if k != LeaseHeartbeat && k != LeaseYield {
		return Rumor{}, malformed("rumor kind")
	}
	r, err := parseRank(body[9:])
	if err != nil {
		return Rumor{}, err
	}
	return Rumor{Kind: k, Epoch: binary.LittleEndian.Uint64(body[1:]), Rank: r,
		Number: binary.LittleEndian.Uint32(body[9+rankLen:]), Holder: string(body[rumorLen:])}, nil
}
