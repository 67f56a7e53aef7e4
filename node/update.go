package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"updraft/delta/release"
	"updraft/node/install"
)

// update is the way of one release onto this device. Its methods are called from
// the goroutines that run owns.
type update struct {
	n       *Node
	m       *release.Manifest
	raw     []byte
	digest  [32]byte // of raw
	staging string
	arts    []*assembly                // of the manifest, in its order, without twins
	ways    map[[32]byte][]release.Way // by artifact
	room    atomic.Int64               // bytes free for what lies on a chain's way; see Node.room
	better  atomic.Bool                // a way can be gone again: whoever brings what it makes should look
	useless atomic.Bool                // the plan this device brings has a way that nobody could go now; see stranded
	chain   chan struct{}              // one chain at a time has the room; of capacity 1

	mu       sync.Mutex // guards all below
	patches  map[[32]byte]*patchFile
	wanted   map[[32]byte]bool     // patches this device decodes
	failed   map[[32]byte]bool     // patches that failed here
	setbacks map[[32]byte]*setback // by artifact
	bad      map[[32]byte]int      // how often the origin sent wrong bytes of a patch
	maps     map[[32]byte][]byte
	mute     map[peer.ID]bool      // members that sent no map when they were asked for one
	chosen   map[[32]byte][32]byte // artifact: way of the site's plan, zero for chunks
	plans    []planEntry
	epoch    uint64
	rebuilt  int64                   // bytes rebuilt, for the others to see that it works
	working  int                     // artifacts being rebuilt
	active   map[[32]byte]rebuildJob // by artifact
	notes    map[[32]byte]string     // by artifact, for status
	yielded  map[[32]byte]bool       // artifacts whose rebuild was given up once for one complete elsewhere
	read     counter                 // bytes of bases read; grows while a rebuild works
	stalls   int                     // waits in vain since something came here; of obtain's goroutine only
	kept     bool                    // the library has taken the artifacts over; of run's caller only
	had      int64                   // bytes here when stalls was reset; of obtain's goroutine only
}

// rebuildJob is a rebuild under way.
type rebuildJob struct {
	way  [32]byte // its name; zero: a copy of an artifact held here
	stop context.CancelCauseFunc
}

// errYield ends a rebuild when another device has the artifact complete.
var errYield = errors.New("node: another device has it complete")

// errComplete ends a rebuild when all of its artifact has come from others.
var errComplete = errors.New("node: it is complete here")

// errOtherPlan ends a rebuild when the site's plan has another way.
var errOtherPlan = errors.New("node: the site brings it another way")

// newUpdate prepares the way of the release: everything found on disk from an
// earlier run is taken up again.
func (n *Node) newUpdate(m *release.Manifest, raw []byte, digest [32]byte) (_ *update, err error) {
	u := &update{n: n, m: m, raw: raw, digest: digest, patches: make(map[[32]byte]*patchFile), wanted: make(map[[32]byte]bool),
		failed: make(map[[32]byte]bool), setbacks: make(map[[32]byte]*setback), maps: make(map[[32]byte][]byte), mute: make(map[peer.ID]bool), chosen: make(map[[32]byte][32]byte), active: make(map[[32]byte]rebuildJob), bad: make(map[[32]byte]int),
		notes: make(map[[32]byte]string), yielded: make(map[[32]byte]bool), ways: make(map[[32]byte][]release.Way), chain: make(chan struct{}, 1)}
	for i := range m.Artifacts {
		if original(m, i) == i {
			u.ways[m.Artifacts[i].Sum] = waysTo(m, i)
		}
	}
	if err := n.makeWay(m.Version, raw); err != nil {
		return nil, err
	}
	if u.staging, err = n.dir.Staging(m.Version); err != nil {
		return nil, err
	}
	// What was staged for a release that the channel has left behind would take the
	// space of this one. Whether there is enough without is seen next.
	n.problem(problemDisk, "state", errors.Join(n.dir.CleanStaging(m.Version), n.sweep(m)))
	room, err := n.checkSpace(m, u.staging)
	if err != nil {
		return nil, err
	}
	u.room.Store(room)
	if err := n.lib.keepManifest(m.Version, raw); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, u.abandon())
		}
	}()
	for i := range m.Artifacts {
		if original(m, i) != i {
			continue
		}
		a, err := u.prepare(&m.Artifacts[i])
		if err != nil {
			return nil, err
		}
		u.arts = append(u.arts, a)
	}
	return u, nil
}

// makeWay removes what lies here of another release under the same version, complete or
// staged, so that nothing of it is ever taken for this one: it has another manifest than raw.
func (n *Node) makeWay(version string, raw []byte) error {
	b, err := os.ReadFile(n.paths.manifest(version))
	if err == nil && bytes.Equal(b, raw) {
		return nil
	}
	if err := n.dir.Discard(version); err != nil {
		if !errors.Is(err, install.ErrRemove) || !n.dir.Free(version) {
			return err
		}
		n.problem(problemDisk, "leftovers", err)
	}
	return n.lib.drop(version, n.dir.Path)
}

// place opens where art is assembled, and reports whether something of it may be there.
func (u *update) place(art *release.Artifact) (st stream, resumed bool, err error) {
	path := filepath.Join(u.staging, art.Name)
	_, err = os.Lstat(path)
	resumed = err == nil
	if art.Kind == release.Tree {
		st, err = createTree(path, u.n.paths.listing(art.Sum), art.ListingSize, art.Size, u.n.likeTree(art))
	} else {
		st, err = createFile(path, art.Size, os.FileMode(art.Mode))
	}
	return st, resumed, err
}

// prepare opens an artifact for assembly.
func (u *update) prepare(art *release.Artifact) (*assembly, error) {
	n := u.n
	st, resumed, err := u.place(art)
	if err != nil {
		return nil, err
	}
	index, err := os.OpenFile(n.paths.index(art.Sum), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("node: open chunk index: %w", err), st.Close())
	}
	a := newAssembly(art, n.reg, st, index)
	a.resumed = resumed
	if art.Kind == release.Tree {
		if fi, err := index.Stat(); err == nil && fi.Size() > 0 {
			a.resumed = true
		}
	}
	a.reuse = n.lib.chunk
	return a, nil
}

// likeTree returns the directory of the tree in service whose place art is to take,
// or "".
func (n *Node) likeTree(art *release.Artifact) string {
	v, ok := n.dir.Current()
	if m, _ := n.lib.manifest(v); ok && m != nil && n.cfg.Links {
		for i := range m.Artifacts {
			if m.Artifacts[i].Name == art.Name && m.Artifacts[i].Kind == release.Tree {
				return filepath.Join(n.dir.Path(v), art.Name)
			}
		}
	}
	return ""
}

// spareRoom is for metadata, a patch and the journal of the file system.
const spareRoom = 4 << 20

// checkSpace refuses a release that does not fit, before its first byte, and returns how
// many bytes it leaves.
func (n *Node) checkSpace(m *release.Manifest, staging string) (left int64, err error) {
	need, left, err := n.space(m, staging)
	if err != nil {
		return 0, err
	}
	return left, install.Space(n.cfg.Data, need)
}

// space returns how many bytes a release still takes, beside those that its files have,
// and about how many it leaves.
func (n *Node) space(m *release.Manifest, staging string) (need, left int64, err error) {
	need = spareRoom
	for i := range m.Artifacts {
		need += m.Artifacts[i].Size
	}
	if err := filepath.WalkDir(staging, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if fi, err := d.Info(); err == nil {
			need -= diskUse(fi)
		}
		return nil
	}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, 0, fmt.Errorf("node: read staging directory: %w", err)
	}
	need = max(need, 0)
	free, err := install.Free(n.cfg.Data)
	return need, coarse(free - need), err
}

// run makes every artifact of the release complete.
func (u *update) run(ctx context.Context) error {
	n := u.n
	g, gctx := errgroup.WithContext(ctx)
	done, finished := context.WithCancel(gctx)
	defer finished()
	for _, a := range u.arts {
		if err := u.begin(a); err != nil {
			return err
		}
	}
	n.announce()
	g.Go(func() error { return ignoreEnd(done, u.obtain(done)) })
	g.Go(func() error { return ignoreEnd(done, u.follow(done)) })
	for _, a := range u.arts {
		g.Go(func() error { return ignoreEnd(done, u.rebuildWhenPossible(done, a)) })
	}
	g.Go(func() error {
		defer finished()
		for _, a := range u.arts {
			if err := u.await(gctx, a); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// ignoreEnd drops the error of work that was ended because it is done.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// begin opens the artifact in the swarm; one that a held release has as well is
// copied from there.
func (u *update) begin(a *assembly) error {
	return a.start(true)
}

// await drives a until every chunk is there and its digest is right. A write that failed is an
// error, even where what it was to write has come again. It is errDigest if the artifact was published so, and
// errMisread if that may be the storage's doing.
func (u *update) await(ctx context.Context, a *assembly) error {
	var before *wrongDigest
	for {
		for !a.complete() {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-a.wake:
			case <-time.After(time.Second):
			}
			if err := errors.Join(a.err(), a.advance()); err != nil {
				return err
			}
			a.settle(ctx)
		}
		err := a.err() // one that has come since: what was hashed before may be there no more
		if err == nil {
			err = a.digest(ctx)
		}
		if err == nil {
			u.overcome(a.art)
			a.signalPlan()
			return nil
		}
		wrong := new(wrongDigest)
		switch {
		case !errors.As(err, &wrong):
			return err
		case before == nil:
			// What is on disk is not what was written: find out which chunks.
			u.n.problem(problemDisk, a.art.Name, err)
			before = wrong
			a.reverify()
		case wrong.confirms(before):
			u.n.problem(problemDisk, a.art.Name, nil)
			return err
		default:
			err = fmt.Errorf("%w: %s", errMisread, a.art.Name)
			u.n.problem(problemDisk, a.art.Name, err)
			return err
		}
	}
}

// follow adopts the plan of the member that holds the uplink. What this device planned when it
// held it itself stays until another does.
func (u *update) follow(ctx context.Context) error {
	var holder peer.ID // the last one seen, which may be this device
	for {
		changed := u.n.sw.Changed()
		if by, ok := u.n.sw.Holder(); ok {
			holder = by
		}
		for _, m := range u.n.members() {
			// Only the holder's own word counts: a plan that went from hand to hand
			// could be anybody's. It may plan anew under the same epoch.
			if m.ID == holder && m.profile.Target == u.digest && len(m.profile.Plan) > 0 {
				plan := u.known(m.profile.Plan)
				if u.adoptPlan(plan, m.profile.Epoch) {
					why := u.explainFollowed(plan, m.Name)
					u.n.status.reason(u.m.Version, func(r *reasons) { r.followed = why })
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// known returns the entries of a plan that this device knows the ways of.
func (u *update) known(plan []planEntry) []planEntry {
	var out []planEntry
	for _, e := range plan {
		for _, a := range u.arts {
			if a.art.Sum != e.Artifact {
				continue
			}
			if e.Way == [32]byte{} || u.way(a.art, e.Way) != nil {
				out = append(out, e)
			}
		}
	}
	return out
}

// adopt takes this device's own choices as the site's plan.
func (u *update) adopt(cs []choice, epoch uint64) {
	var plan []planEntry
	for i, c := range cs {
		if u.arts[i].complete() {
			continue
		}
		e := planEntry{Artifact: u.arts[i].art.Sum}
		if c.way != nil {
			e.Way = c.way.Name()
		}
		plan = append(plan, e)
	}
	u.adoptPlan(plan, epoch)
}

// adoptPlan makes plan that of the site and reports whether it is another one than before.
func (u *update) adoptPlan(plan []planEntry, epoch uint64) bool {
	u.mu.Lock()
	same := u.epoch == epoch && slices.Equal(u.plans, plan)
	u.epoch, u.plans = epoch, plan
	for _, e := range plan {
		u.chosen[e.Artifact] = e.Way
		// A patch that nobody brings any more would be waited for for ever.
		if j, ok := u.active[e.Artifact]; ok && j.way != e.Way && j.way != [32]byte{} {
			j.stop(errOtherPlan)
		}
	}
	u.mu.Unlock()
	if same {
		return false
	}
	for _, a := range u.arts {
		a.signalPlan()
	}
	u.n.announce()
	return true
}

func (u *update) complete() bool {
	for _, a := range u.arts {
		if !a.complete() {
			return false
		}
	}
	return true
}

// progress returns the bytes here and those wanted.
func (u *update) progress() (have, total int64) {
	for _, a := range u.arts {
		have += a.progress()
		total += a.art.Size
	}
	return have, total
}

// abandon closes what is open; all that has been verified stays on disk.
func (u *update) abandon() error {
	var err error
	for _, a := range u.arts {
		err = errors.Join(err, a.forget())
	}
	return errors.Join(err, u.closePatches())
}

func (u *update) closePatches() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var err error
	for _, pf := range u.patches {
		u.n.sw.Close(pf.id)
		err = errors.Join(err, pf.f.Close())
	}
	clear(u.patches)
	return err
}

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
