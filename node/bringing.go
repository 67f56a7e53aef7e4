package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/delta"
	"updraft/delta/release"
	"updraft/swarm"
	"updraft/swarm/origin"
)

// stored is a chunk to fetch and where the origin has it.
type stored struct {
	page    *page
	i       int
	ordinal int // in the artifact's index
	at      delta.Location
}

// locate finds the chunks in the packs.
func (u *update) locate(ctx context.Context, a *assembly, want []stored) error {
	b, err := u.packMap(ctx, a.art)
	if err != nil {
		return err
	}
	m, err := delta.ParsePackMap(b, int(a.art.Chunks()), delta.PackSizes(u.m))
	if err != nil {
		return err
	}
	for k := range want {
		want[k].at = m[want[k].ordinal]
	}
	sort.SliceStable(want, func(i, j int) bool {
		x, y := want[i].at, want[j].at
		return x.Pack < y.Pack || x.Pack == y.Pack && x.Offset < y.Offset
	})
	return nil
}

// packMap returns the pack map of art, from a member that has it or the origin.
func (u *update) packMap(ctx context.Context, art *release.Artifact) ([]byte, error) {
	u.mu.Lock()
	b := u.maps[art.Map]
	u.mu.Unlock()
	if b != nil {
		return b, nil
	}
	if b := u.membersMap(ctx, art); b != nil {
		return u.keepMap(art, b), nil
	}
	b, err := u.n.origin.Get(ctx, delta.ObjectName(delta.MapDir, art.Map), art.MapSize)
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(b) != art.Map {
		return nil, fmt.Errorf("%w: pack map of %s", errOrigin, art.Name)
	}
	return u.keepMap(art, b), nil
}

// How long members may take to send a pack map, all together: the origin has it, too. Another is asked as soon as one has
// not got it, or has not answered for a while.
const (
	mapTimeout = 2 * time.Second
	mapNext    = 250 * time.Millisecond
	mapMute    = 2 * mapNext // who was asked for less than that is not to blame
)

// membersMap returns the pack map of art from a member, or nil. A member that says it may have it, and sends something
// else, or nothing until then, is not asked again in this update.
func (u *update) membersMap(ctx context.Context, art *release.Artifact) []byte {
	ctx, cancel := context.WithTimeout(ctx, mapTimeout)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	answers := make(chan []byte) // nil: not from this one
	asked := 0
	for _, m := range u.n.members() {
		if m.profile.Target != u.digest || m.profile.Progress == 0 || u.isMute(m.ID) {
			continue
		}
		asked++
		wg.Go(func() {
			b := u.memberMap(ctx, m.ID, art)
			select {
			case answers <- b:
			case <-ctx.Done():
			}
		})
		select {
		case b := <-answers:
			if asked--; b != nil {
				return b
			}
		case <-time.After(mapNext):
		case <-ctx.Done():
			return nil
		}
	}
	for ; asked > 0; asked-- {
		select {
		case b := <-answers:
			if b != nil {
				return b
			}
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// memberMap returns the pack map of art from one member, or nil. It is the member's fault unless ctx was cancelled.
func (u *update) memberMap(ctx context.Context, by peer.ID, art *release.Artifact) []byte {
	begun := time.Now()
	b, err := u.n.sw.Request(ctx, by, delta.ObjectName(delta.MapDir, art.Map), int(art.MapSize))
	switch {
	case err == nil && sha256.Sum256(b) == art.Map:
		return b
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, swarm.ErrBusy), errors.Is(ctx.Err(), context.Canceled):
	case ctx.Err() != nil && time.Since(begun) < mapMute:
	default:
		u.setMute(by)
	}
	return nil
}

func (u *update) isMute(id peer.ID) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.mute[id]
}

func (u *update) setMute(id peer.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mute[id] = true
}

// mapNamed returns the pack map with a name at the origin, if it is known here.
func (u *update) mapNamed(name string) []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	for sum, b := range u.maps {
		if delta.ObjectName(delta.MapDir, sum) == name {
			return b
		}
	}
	return nil
}

func (u *update) keepMap(art *release.Artifact, b []byte) []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.maps[art.Map] = b
	return b
}

// bringStored streams chunks from the packs, each injected as it arrives.
func (u *update) bringStored(ctx context.Context, want []stored) (again bool, err error) {
	for len(want) > 0 {
		n := 1
		for n < len(want) && want[n].at.Pack == want[0].at.Pack {
			n++
		}
		again, err = u.bringPack(ctx, want[:n])
		if again || err != nil {
			return again, err
		}
		want = want[n:]
	}
	return false, nil
}

var errReplan = errors.New("node: members have brought much of it")

func (u *update) bringPack(ctx context.Context, want []stored) (again bool, err error) {
	// Chunks that occur several times are fetched once.
	var rs []origin.Range
	var first []int
	for k, w := range want {
		if k > 0 && w.at == want[k-1].at {
			continue
		}
		rs = append(rs, origin.Range{Off: w.at.Offset, Len: int64(w.at.Len)})
		first = append(first, k)
	}
	dec, err := delta.NewDecoder()
	if err != nil {
		return false, err
	}
	var buf []byte
	came := make([]bool, len(rs))
	var unasked int // bytes since it was last asked what others have
	pack := u.m.Packs[want[0].at.Pack]
	err = u.n.origin.Ranges(ctx, delta.ObjectName(delta.PackDir, pack.Sum), pack.Size, rs, func(r int, b []byte) error {
		k := first[r]
		w := want[k]
		plain, err := dec.Chunk(buf, b, w.at.Raw, w.page.chunks[w.i])
		if err != nil {
			return fmt.Errorf("%w: chunk %d in pack %x: %w", errOrigin, w.ordinal, pack.Sum[:6], err)
		}
		buf = plain[:0]
		for ; k < len(want) && want[k].at == w.at; k++ {
			if err := u.n.reg.put(want[k].page, want[k].i, plain); err != nil {
				return err
			}
			if w.at.Raw {
				u.n.sw.Inject(want[k].page.id, want[k].i, plain)
			} else {
				u.n.sw.InjectPacked(want[k].page.id, want[k].i, b)
			}
		}
		came[r] = true
		if unasked += len(b); unasked > replanBytes {
			unasked = 0
			if u.surplusChunks(want, first, came) > replanBytes {
				return errReplan
			}
		}
		u.n.sw.Pace(ctx)
		return nil
	})
	if errors.Is(err, errReplan) {
		return true, nil
	}
	return false, err
}

// surplusChunks returns how many bytes of the ranges that have not come hold a chunk that somebody has by now: want[first[r]]
// for range r. After a lease was taken from a holder that lived, they can be all that it brought in its last seconds.
func (u *update) surplusChunks(want []stored, first []int, came []bool) (n int64) {
	missing := map[*page][]int{}
	for r, k := range first {
		if came[r] {
			continue
		}
		w := &want[k]
		list, ok := missing[w.page]
		if !ok {
			list = u.n.sw.Missing(w.page.id)
			missing[w.page] = list
		}
		if _, miss := slices.BinarySearch(list, w.i); !miss {
			n += int64(w.at.Len)
		}
	}
	return n
}
