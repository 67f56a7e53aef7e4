package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sort"
	"sync"
	"syscall"
	"time"

	"updraft/delta/chunk"
	"updraft/delta/patch"
	"updraft/delta/release"
	"updraft/delta/tree"
	"updraft/discovery/mdns"
	"updraft/node/identity"
	"updraft/node/install"
	"updraft/node/report"
	"updraft/swarm"
	"updraft/swarm/origin"
)

// States of a device, as status shows them.
const (
	stateStarting   = "starting"
	stateIdle       = "idle"
	stateChecking   = "checking"
	stateFetching   = "fetching"
	stateRebuilding = "rebuilding"
	stateInstalling = "installing"
	stateFailed     = "failed"
)

// Codes of problems. One problem is kept for each code and subject.
const (
	problemOrigin    = "origin"
	problemFetch     = "fetch"
	problemPeerMeta  = "peer-metadata"
	problemBase      = "base"
	problemPatch     = "patch"
	problemDisk      = "disk"
	problemUpdate    = "update"
	problemInstall   = "install"
	problemHold      = "hold"
	problemDiscovery = "discovery"
	problemMulticast = "multicast"
	problemDHT       = "dht"
	problemMetrics   = "metrics"

	problemRefused     = "refused"     // a device of the fleet that is not admitted
	problemStranger    = "stranger"    // somebody else who wants to be admitted
	problemCertificate = "certificate" // this device's own
	problemRole        = "role"        // what it is configured for, and its certificate does not allow
)

// statusBoard is what the device has to say about itself. It is safe for
// concurrent use.
type statusBoard struct {
	problems *report.Problems

	mu        sync.Mutex // guards all below
	now       string
	failed    bool
	why       reasons
	lastCheck time.Time
	reused    int64 // bytes of earlier updates
	written   int64
}

// reasons tell why a release comes as it does.
type reasons struct {
	version  string
	own      []string // of the last plan that this device made for it
	followed []string // whose plan it has followed since then, and what that is
	brought  int64    // bytes that this device brought for it over the uplink
}

func newStatusBoard() *statusBoard {
	return &statusBoard{problems: report.NewProblems(), now: stateStarting}
}

func (s *statusBoard) state() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed && s.now == stateIdle {
		return stateFailed
	}
	return s.now
}

func (s *statusBoard) set(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = state
}

func (s *statusBoard) setFailed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = true
}

// clearAll forgets the problems of an update that came into service after all.
func (s *statusBoard) clearAll() {
	s.mu.Lock()
	s.failed = false
	s.mu.Unlock()
	for _, code := range []string{problemFetch, problemUpdate, problemInstall, problemHold} {
		s.problems.ClearCode(code)
	}
}

func (s *statusBoard) checked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastCheck = time.Now()
}

func (s *statusBoard) add(a *assembly) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reused += a.reused.Load()
	s.written += a.written.Load()
}

func (n *Node) setState(state string) { n.status.set(state) }

// aim forgets the reasons of the release before, as version is wanted now.
func (s *statusBoard) aim(version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why = reasons{version: version}
}

// reason changes the reasons of version, unless another release is wanted by now.
func (s *statusBoard) reason(version string, change func(*reasons)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why.version == version {
		change(&s.why)
	}
}

// restState shows what the device does when what it did in between has ended.
func (n *Node) restState() {
	n.mu.Lock()
	busy := n.upd != nil
	n.mu.Unlock()
	if busy {
		n.setState(stateFetching)
		return
	}
	n.setState(stateIdle)
}

// problem notes a failure under a code and subject, or that it is over (nil). What is
// noted again and again, as others can make it, is logged once.
func (n *Node) problem(code, subject string, err error) {
	if err == nil {
		n.status.problems.Clear(code, subject)
		return
	}
	if errors.Is(err, context.Canceled) {
		return
	}
	level := slog.LevelDebug
	if n.status.problems.Add(report.Problem{Code: code, Subject: subject, Text: err.Error(), Hint: hint(err)}) {
		level = slog.LevelWarn
	}
	n.log.Log(context.Background(), level, "problem", "code", code, "subject", subject, "err", err)
}

// hint says what a person can do about err.
func hint(err error) string {
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.text
		}
	}
	return ""
}

// wrongManifest is what to do about a release that was signed and is not for this device.
const wrongManifest = "the publisher has signed what is not for this device, or somebody with the channel's key: look who, and updraft publish again"

var hints = []struct {
	err  error
	text string
}{
	{report.ErrToken, "set metrics_token in the configuration, or listen on loopback"},
	{syscall.ENOSPC, "free space on the device; the update goes on by itself"},
	{syscall.EIO, "the device's storage does not read or write what it should: look at it"},
	{errMisread, "the device's storage does not read or write what it should: look at it; the update is tried again by itself"},
	{install.ErrNoSpace, "free space on the device, or lower keep in the configuration; the update goes on by itself"},
	{install.ErrRemove, "something on the device keeps it from being deleted, such as another user's directory, a mount or an immutable file: delete it by hand; the agent goes on"},
	{release.ErrClock, "set the device's clock"},
	{release.ErrExpired, "check the device's clock; if it is right, the publisher must run updraft refresh"},
	{release.ErrSignature, "the origin or a neighbour serves metadata that this fleet did not sign: look who"},
	{release.ErrCorrupt, "the origin or a neighbour serves metadata that is damaged, or a page of a proxy in its place: look who"},
	{release.ErrTooLarge, "the origin or a neighbour serves metadata that does not end, or a page of a proxy in its place: look who"},
	{release.ErrMixAndMatch, "the origin serves files of several times: copy metadata/timestamp.json last, and all of the publisher's directory"},
	{release.ErrWrongChannel, wrongManifest},
	{release.ErrWrongType, wrongManifest},
	{release.ErrManifest, wrongManifest},
	{errReused, "publish it again under a version of its own"},
	{release.ErrRollback, "the origin serves older metadata than before: restore it from the publisher's directory"},
	{identity.ErrRevoked, "enroll the device anew, or undo it: updraft revoke --undo"},
	{identity.ErrExpired, "enroll the device anew: updraft enroll --replace"},
	{swarm.ErrTwin, "its storage was copied to another device: enroll one of the two anew under a name of its own; if nobody did that, first updraft revoke, which ends the certificate, then updraft enroll --replace"},
	{errBreach, "its program is damaged or of another make, or it is in wrong hands: look at it, or updraft revoke it"},
	{errLiar, "its memory, storage or program is damaged, or it is in wrong hands: look at it, or updraft revoke it"},
	{errRole, "enroll the device anew as a gateway: updraft enroll --replace --role gateway (the certificate before stays good unless updraft revoke comes first); or take gateway out of its configuration"},
	{errEnding, "the publisher must run updraft renew, which the device learns from the origin or a neighbour; or enroll it anew before that day"},
	{tree.ErrCollision, "the release has names that differ by case or accents only: keep the data directory on a file system that tells them apart, or rename them and publish again"},
	{patch.ErrBase, "a file of an installed release was changed on this device; the update goes on without it"},
	{mdns.ErrNoMulticast, "look at the interface of the LAN and at the firewall; where multicast cannot pass, name devices with --peer, or set dht"},
	{errNoTarget, "publish a release on the channel and for this type, then: updraft check"},
	{origin.ErrNoRanges, "serve the origin with a web server that supports Range requests, and look at proxies before it; updraft serve does"},
	{origin.ErrUnreachable, "check the uplink and the origin's address; a neighbour that reaches it will do as well"},
	{origin.ErrNotFound, "the origin lacks a file of the release: publish its directory as a whole"},
	{origin.ErrChanged, "the origin has other bytes than were published: restore it from the publisher's directory"},
	{errOrigin, "the origin has other bytes than were published: restore it from the publisher's directory"},
}

// errsUntrusted are what is said of metadata that is not what was published, or not what was published last.
var errsUntrusted = []error{release.ErrSignature, release.ErrExpired, release.ErrRollback, release.ErrMixAndMatch, release.ErrCorrupt, release.ErrClock}

func untrusted(err error) bool {
	return slices.ContainsFunc(errsUntrusted, func(e error) bool { return errors.Is(err, e) })
}

// told is err as who asked for something gets to know it.
func told(err error) error {
	f := &report.Failure{Text: err.Error(), Hint: hint(err), Err: err}
	for _, k := range []struct {
		kind string
		errs []error
	}{
		{report.KindNotFound, []error{errNoTarget}},
		{report.KindUnreachable, []error{errNoUplink}}, // whatever a neighbour had instead
		{report.KindUntrusted, errsUntrusted},
		{report.KindUnreachable, []error{origin.ErrUnreachable}},
	} {
		if slices.ContainsFunc(k.errs, func(e error) bool { return errors.Is(err, e) }) {
			f.Kind = k.kind
			break
		}
	}
	return f
}

// Status implements report.Backend.
func (n *Node) Status() report.Status {
	n.mu.Lock()
	t, u := n.target, n.upd
	n.mu.Unlock()
	s := n.status
	s.problems.ClearOlder(problemStranger, strangerNotice)
	st := report.Status{
		Name: n.enr.Name, Type: n.enr.Type, Site: n.enr.Site, Channel: n.enr.Channel, Role: "device",
		PeerID: n.id.String(), State: s.state(), Problems: s.problems.List(), Since: n.start,
	}
	st.NotAfter = time.Unix(n.own().NotAfter, 0).UTC()
	if n.gw {
		st.Role = "gateway"
	}
	st.Current, _ = n.dir.Current()
	if t != nil {
		st.Target = t.m.Version
	}
	if by, ok := n.sw.Holder(); ok {
		st.Holder, st.IsHolder = n.nameOf(by), by == n.id
		if st.IsHolder {
			st.Holder = n.enr.Name
		}
	}
	st.Peers = len(n.sw.Members())
	c := n.sw.Counters()
	st.Bytes.LANIn, st.Bytes.LANOut = c.BytesIn, c.BytesOut
	if n.origin != nil {
		st.Bytes.Uplink, _ = n.origin.Counters()
	}
	n.countBytes(&st.Bytes)
	s.mu.Lock()
	st.Why, st.WhyFor, st.Brought, st.LastCheck = slices.Concat(s.why.own, s.why.followed), s.why.version, s.why.brought, s.lastCheck
	s.mu.Unlock()
	if u != nil {
		have, total := u.progress()
		st.Progress = &report.Progress{Have: have, Total: total}
		st.Why = append(st.Why, u.explained()...)
	}
	st.Releases, st.Refused = n.releases(st.Current), n.refusals()
	return st
}

// countBytes fills in what updates have reused and written.
func (n *Node) countBytes(b *report.Bytes) {
	n.mu.Lock() // an update ends and its bytes are added in one step
	defer n.mu.Unlock()
	s := n.status
	s.mu.Lock()
	b.Reused, b.Written = s.reused, s.written
	s.mu.Unlock()
	if n.upd == nil {
		return
	}
	for _, a := range n.upd.arts {
		b.Reused += a.reused.Load()
		b.Written += a.written.Load()
	}
}

func (n *Node) releases(current string) []report.ReleaseStatus {
	n.lib.mu.Lock()
	defer n.lib.mu.Unlock()
	var out []report.ReleaseStatus
	for v, h := range n.lib.rel {
		r := report.ReleaseStatus{Version: v, InService: v == current}
		for i := range h.manifest.Artifacts {
			a := &h.manifest.Artifacts[i]
			r.Artifacts = append(r.Artifacts, report.ArtifactStatus{Name: a.Name, Kind: string(a.Kind), Size: a.Size, CID: chunk.CID(a.Sum).String()})
		}
		out = append(out, r)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Version < out[j].Version })
	return out
}

// Peers implements report.Backend.
func (n *Node) Peers() []report.Peer {
	var out []report.Peer
	for _, m := range n.members() {
		out = append(out, report.Peer{ID: m.ID.String(), Name: m.Name, Type: m.Type, Roles: m.Roles, Addr: m.Addr, Since: m.Since,
			Version: m.profile.Version, State: m.profile.State, Progress: m.profile.Progress, Gateway: m.Profile.Rank.Gateway,
			BytesIn: m.BytesIn, BytesOut: m.BytesOut})
	}
	return out
}

// Check implements report.Backend: it looks for a release now.
func (n *Node) Check(ctx context.Context) (report.CheckResult, error) {
	if err := n.checker.check(ctx, true); err != nil {
		return report.CheckResult{}, told(err)
	}
	n.checkedOnce()
	st := n.Status()
	return report.CheckResult{Current: st.Current, Target: st.Target, New: st.Target != "" && st.Target != st.Current}, nil
}
