package swarm_test

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/libp2p/go-libp2p/core/network"

	"updraft/swarm"
	"updraft/swarm/wire"
)

// act is one way to be a villain. play returns when it has nothing more to do, or the connection has ended.
type act struct {
	name  string
	shuns bool          // every device to which it lies shuns it
	stall time.Duration // what it may cost the site
	play  func(f *front)
}

// acts are all ways, one for each kind of lie.
func acts() []act {
	list := []act{
		{"wrong bytes", true, 0, wrongBytes},
		{"wrong lengths", true, 0, wrongLengths},
		{"bombs", true, 0, bombs},
		{"damaged messages", true, 0, damaged},
		{"endless blobs", false, 0, endlessBlobs},
		{"endless messages", false, 0, endlessMessages},
		{"the same blob again and again", false, 0, repeats},
		{"reads nothing", false, 0, readsNothing},
		{"writes slowly", false, 0, writesSlowly},
		{"false holdings", false, 0, falseHoldings},
		{"blobs that go no further", false, 0, sink},
		{"flood of haves and wants", false, 0, flood},
		{"changes its mind", false, 0, flaps},
		{"lease theft", false, stolen, leaseTheft},
		{"claims and objections", false, stolen, objects},
		{"epoch jumps", false, stolen, epochJumps},
		{"replays", false, stolen, replays},
	}
	return append(list, act{"all of it at random", false, stolen, func(f *front) { // the acts before this one
		for f.ctx.Err() == nil {
			turn, done := context.WithTimeout(f.ctx, f.between(300*time.Millisecond, 10*time.Second))
			f.turn = turn
			f.setDeaf(false)
			list[f.draw(len(list))].play(f)
			done()
		}
	}})
}

// stolen is what the theft of a lease may cost: twice the time until a candidate doubts who keeps it waiting, since
// there may be others to doubt first.
const stolen = 130 * time.Second

func wrongBytes(f *front) {
	if !f.claim() {
		return
	}
	if i, ok := f.target(300 * time.Millisecond); ok {
		f.lied()
		f.write(wire.AppendBlobHeader(nil, wire.BlobHeader{ID: f.c.ID, Index: i, Len: f.c.Sizes[i], Flags: wire.BlobRelay}), make([]byte, f.c.Sizes[i]))
	}
	f.sleep(10 * time.Second)
}

func wrongLengths(f *front) {
	i, ok := f.target(300 * time.Millisecond)
	if !ok {
		return
	}
	h := wire.BlobHeader{ID: f.c.ID, Index: i, Len: f.c.Sizes[i] + 1}
	if f.draw(2) == 0 {
		h.Index += uint32(len(f.c.Sums))
	}
	f.lied()
	f.write(wire.AppendBlobHeader(nil, h), make([]byte, h.Len))
	f.sleep(10 * time.Second)
}

func bombs(f *front) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	frame := z.EncodeAll(make([]byte, 16<<20), nil)
	if f.draw(2) == 0 {
		frame = z.EncodeAll(make([]byte, 100), nil)
	}
	if i, ok := f.target(300 * time.Millisecond); ok {
		f.lied()
		f.write(wire.AppendBlobHeader(nil, wire.BlobHeader{ID: f.c.ID, Index: i, Len: f.c.Sizes[i], Packed: uint32(len(frame))}), frame)
	}
	f.sleep(10 * time.Second)
}

func damaged(f *front) {
	if !f.sleep(f.between(0, time.Second)) {
		return
	}
	f.lied()
	switch f.draw(4) {
	case 0:
		f.say([]byte{0xff, 0xff, 0x7f})
	case 1:
		f.say(wire.AppendHello(nil, wire.Hello{Version: 1, Instance: 10, Credential: []byte("fleet")}))
	case 2:
		f.say(wire.AppendFrame(nil, wire.TypeInterest, []byte("short")))
	case 3:
		f.say(wire.AppendFrame(nil, wire.TypeHave, append(f.c.ID[:], 0xff, 0xff, 0xff)))
	}
	f.sleep(10 * time.Second)
}

func endlessBlobs(f *front) {
	f.lied() // 16 of them nobody takes for an accident
	b := make([]byte, wire.MaxBlob)
	for n := 0; n < 64 && f.turn.Err() == nil; n++ {
		if !f.write(wire.AppendBlobHeader(nil, wire.BlobHeader{ID: [32]byte{9}, Len: wire.MaxBlob}), b) {
			return
		}
	}
}

func endlessMessages(f *front) {
	b := wire.AppendFrame(nil, 200, make([]byte, 20<<10))
	for n := 0; n < 2000 && f.turn.Err() == nil && f.say(b); n++ {
	}
}

func repeats(f *front) {
	i := uint32(f.draw(len(f.c.data)))
	for f.write(wire.AppendBlobHeader(nil, wire.BlobHeader{ID: f.c.ID, Index: i, Len: f.c.Sizes[i], Flags: wire.BlobRelay}), f.c.data[i]) && f.sleep(300*time.Millisecond) {
	}
}

func readsNothing(f *front) {
	f.setDeaf(true)
	f.h.SetStreamHandler(swarm.ProtoBlob, func(st network.Stream) {})
	all := make([]uint32, len(f.c.Sums))
	for i := range all {
		all[i] = uint32(i)
	}
	if !f.crave() {
		return
	}
	for f.say(wire.AppendIndexes(nil, wire.TypeGet, f.c.ID, all), wire.AppendFrame(nil, wire.TypePing, nil)) && f.sleep(200*time.Millisecond) {
	}
}

func writesSlowly(f *front) {
	if !f.claim() {
		return
	}
	for {
		i, ok := f.target(500 * time.Millisecond)
		if !ok {
			if !f.sleep(500 * time.Millisecond) {
				return
			}
			continue
		}
		f.lied() // if it ends in the middle, what comes next is taken for the rest
		if !f.write(wire.AppendBlobHeader(nil, wire.BlobHeader{ID: f.c.ID, Index: i, Len: f.c.Sizes[i]})) {
			return
		}
		for k := range f.c.data[i] {
			if !f.write(f.c.data[i][k:k+1]) || !f.sleep(400*time.Millisecond) {
				return
			}
		}
	}
}

// falseHoldings claims everything, sends nothing of it, and looks busy.
func falseHoldings(f *front) {
	if !f.claim() {
		return
	}
	junk := append(wire.AppendBlobHeader(nil, wire.BlobHeader{ID: [32]byte{8}, Len: 1}), 0)
	for f.write(junk) && f.say(wire.AppendFrame(nil, wire.TypePing, nil)) && f.sleep(300*time.Millisecond) {
	}
}

// sink takes what it is to pass on, says that it has it, and keeps it to itself.
func sink(f *front) {
	f.h.SetStreamHandler(swarm.ProtoBlob, func(st network.Stream) { _, _ = io.Copy(io.Discard, st) })
	if !f.crave() {
		return
	}
	for i := range f.c.Sums {
		if !f.say(wire.AppendIndexes(nil, wire.TypeHave, f.c.ID, []uint32{uint32(i)})) || !f.sleep(100*time.Millisecond) {
			return
		}
	}
	f.sleep(time.Minute)
}

func flood(f *front) {
	f.setDeaf(f.draw(2) == 0)
	all := make([]uint32, len(f.c.Sums))
	for i := range all {
		all[i] = uint32(i)
	}
	n := uint32(wire.MaxBlobs)
	for k := range 3000 {
		id := f.c.ID
		if k%2 == 0 {
			id = [32]byte{byte(k), byte(k >> 8), 1}
		}
		ok := f.say(
			wire.AppendInterest(nil, wire.Interest{ID: id, Count: n, Flags: wire.FlagAll}),
			wire.AppendIndexes(nil, wire.TypeGet, f.c.ID, all),
			wire.AppendIndexes(nil, wire.TypeHave, f.c.ID, all),
			wire.AppendIndexes(nil, wire.TypeCancel, f.c.ID, all[:len(all)/2]),
			wire.AppendIndexes(nil, wire.TypeNack, f.c.ID, all))
		if !ok || f.turn.Err() != nil {
			return
		}
	}
}

func flaps(f *front) {
	n := uint32(len(f.c.Sums))
	bits := make([]byte, (n+7)/8)
	for {
		for k := range bits {
			bits[k] = byte(f.draw(256))
		}
		if n%8 != 0 {
			bits[len(bits)-1] &= 1<<(n%8) - 1
		}
		if !f.say(wire.AppendInterest(nil, wire.Interest{ID: f.c.ID, Count: n, Flags: byte(f.draw(4)), Bits: slices.Clone(bits)})) || !f.sleep(f.between(0, 100*time.Millisecond)) {
			return
		}
		switch f.draw(8) {
		case 0:
			if !f.say(wire.AppendRetract(nil, f.c.ID)) {
				return
			}
		case 1:
			if !f.claim() || !f.sleep(time.Second) {
				return
			}
		case 2:
			return // and comes again
		}
	}
}

// best is a rank that nobody has a right to.
var best = wire.Rank{Gateway: true, Up: 1 << 30}

func leaseTheft(f *front) {
	for f.say(wire.AppendLease(nil, wire.Lease{Kind: wire.LeaseHeartbeat, Epoch: f.highest() + 1, Rank: best})) && f.sleep(400*time.Millisecond) {
	}
}

func objects(f *front) {
	for {
		e := f.highest()
		if !f.say(wire.AppendLease(nil, wire.Lease{Kind: wire.LeaseClaim, Epoch: e + 1, Rank: best}),
			wire.AppendLease(nil, wire.Lease{Kind: wire.LeaseObject, Epoch: e, Rank: best}),
			wire.AppendLease(nil, wire.Lease{Kind: wire.LeaseObject, Epoch: e, Rank: best, Holder: "nobody"})) || !f.sleep(100*time.Millisecond) {
			return
		}
	}
}

func epochJumps(f *front) {
	for {
		epoch := []uint64{f.highest() + 1, f.highest() + 1<<20, f.highest() + 1<<31, 1 << 40, 1<<64 - 1}[f.draw(5)]
		holder := string(f.to.host.ID())
		if f.draw(2) == 0 {
			holder = "nobody"
		}
		l := wire.Lease{Kind: wire.LeaseKind(1 + f.draw(7)), Epoch: epoch, Rank: best}
		if l.Kind == wire.LeaseObject {
			l.Holder = holder
		}
		if !f.say(wire.AppendLease(nil, l), wire.AppendRumor(nil, wire.Rumor{Kind: wire.LeaseHeartbeat, Epoch: epoch, Rank: best, Number: uint32(f.draw(1 << 30)), Holder: holder})) || !f.sleep(f.between(0, 300*time.Millisecond)) {
			return
		}
	}
}

// replays says again, out of order and to others, what honest devices said.
func replays(f *front) {
	for {
		if b := f.remembered(); b != nil && !f.say(b) {
			return
		}
		if !f.sleep(f.between(0, 60*time.Millisecond)) {
			return
		}
	}
}
