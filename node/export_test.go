package node

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/delta/release"
	"updraft/swarm"
)

// Switch are windows that a test opens and closes.
type Switch struct{ atomic.Bool }

// Open implements windows.
func (s *Switch) Open(time.Time) bool { return s.Load() }

// Next implements windows.
func (s *Switch) Next(t time.Time) (time.Time, bool) { return t, true }

// SetWindows is called before Run.
func (n *Node) SetWindows(s *Switch) { n.windows = s }

// SetLookLimit sets how long a look at the origin may take. It is called before Run.
func (n *Node) SetLookLimit(d time.Duration) { n.checker.limit = d }

// SetSilence sets how long the origin may be silent before others are asked. It is called before Run.
func (n *Node) SetSilence(d time.Duration) { n.checker.silence = d }

// Look looks as a device does that nobody has asked.
func (n *Node) Look(ctx context.Context) error { return n.checker.check(ctx, false) }

// AnswerCheck looks for a member that asks as one does that nobody has asked.
func (n *Node) AnswerCheck(ctx context.Context, from peer.ID) error {
	return n.answerCheck(ctx, from, nil)
}

// Holder returns who holds the uplink lease, as far as this device knows.
func (n *Node) Holder() (peer.ID, bool) { return n.sw.Holder() }

// IndexObject returns the object of an artifact's chunk index.
func IndexObject(art *release.Artifact) swarm.Object { return indexObject(art) }

// AcquireLease acquires the uplink lease, and gives it up at once.
func (n *Node) AcquireLease(ctx context.Context, o swarm.AcquireOptions) error {
	t, err := n.sw.Acquire(ctx, o)
	if err == nil {
		t.Release()
	}
	return err
}

// SetStart sets when the device was started. It is called before Run.
func (n *Node) SetStart(at time.Time) { n.start = at }

// AgeLooks makes the looks of a device so much older.
func (n *Node) AgeLooks(d time.Duration) {
	c := n.checker
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range []*time.Time{&c.last, &c.tried, &c.heard} {
		*t = t.Add(-d)
	}
}

// Planned returns the way that the site's plan has for the first artifact of the update
// under way, zero for chunks, and the epoch of that plan.
func (n *Node) Planned() (way [32]byte, epoch uint64) {
	n.mu.Lock()
	u := n.upd
	n.mu.Unlock()
	if u == nil {
		return way, 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.chosen[u.arts[0].art.Sum], u.epoch
}

// PatchID names the object of the swarm whose blobs are the blocks of a patch.
func PatchID(o swarm.Object) [32]byte { return tableID("patch", o) }

// AsksMembers reports whether a member is to be asked for metadata, if none was lately.
func (n *Node) AsksMembers() bool {
	f := &follower{n: n, asked: make(map[peer.ID]claim)}
	_, ok := f.choose()
	return ok
}

// ProfileMeta returns the version of the metadata that a member says it has.
func ProfileMeta(raw []byte) int64 {
	p, err := decodeProfile(raw)
	if err != nil {
		panic(err)
	}
	return p.Meta
}

// PlanProfile is a member's profile with another plan for an artifact; nil while the member
// knows of no release.
func PlanProfile(raw []byte, artifact, way [32]byte, epoch uint64) []byte {
	p, err := decodeProfile(raw)
	if err != nil {
		panic(err)
	}
	if p.Target == [32]byte{} {
		return nil
	}
	p.Plan, p.Epoch = []planEntry{{Artifact: artifact, Way: way}}, epoch
	b, err := p.encode()
	if err != nil {
		panic(err)
	}
	return b
}

// NetChanged is what is called when an interface or address has changed.
func (n *Node) NetChanged() { n.netChanged() }

// Waits returns how often the uplink is left alone when the network changes every so often for so long.
func Waits(every, long time.Duration) (n int) {
	var s settling
	begin := time.Now()
	for d := time.Duration(0); d < long; d += every {
		if s.begin(begin.Add(d)) {
			n++
		}
	}
	return n
}

// Settled returns until when the uplink is left alone.
func (n *Node) Settled() time.Time {
	at, _ := n.netSettled()
	return at
}

// ReachingProfile is the profile of a member that reaches the origin.
func ReachingProfile() []byte {
	b, err := (&profile{Uplink: uplinkOK}).encode()
	if err != nil {
		panic(err)
	}
	return b
}
