package swarm_test

import (
	"bufio"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	"updraft/swarm"
	"updraft/swarm/wire"
	"updraft/testnet/simhost"
)

// villain is an admitted device that means ill. It speaks the protocol by hand with each device of a site, knows the
// content, and comes back as soon as it is cut off.
type villain struct {
	h   host.Host
	c   content
	act act
	wg  sync.WaitGroup

	mu    sync.Mutex // guards what follows
	r     *rand.Rand
	heard [][]byte        // frames that honest devices sent, to be replayed
	lies  map[*device]int // wrong blobs and breaches of the protocol that went to a device
}

const heardMost = 512 // frames that a villain remembers

// front is the villain's connection with one device.
type front struct {
	*villain
	ctx     context.Context //nolint:containedctx // ends with the connection
	turn    context.Context //nolint:containedctx // ends with what is played at the moment; of its goroutine only
	to      *device
	control network.Stream
	blobs   network.Stream // nil: not opened yet
	asked   chan uint32    // blobs that the device asked for

	mu    sync.Mutex // guards what follows
	deaf  bool       // reads nothing
	epoch uint64     // highest heard
	lacks []uint32   // blobs that the device said it lacks
}

// attack has a new villain act on every device of s until the returned function is called.
func (s *site) attack(c content, seed uint64, a act) (v *villain, end func()) {
	s.t.Helper()
	h, err := s.net.Host(simhost.Link{Down: lan, Up: lan / 4}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	v = &villain{h: h, c: c, act: a, r: rand.New(rand.NewPCG(seed, 3)), lies: map[*device]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	for _, d := range s.dev {
		v.wg.Go(func() { v.haunt(ctx, d) })
	}
	return v, func() {
		cancel()
		v.wg.Wait()
		h.Close()
	}
}

// haunt is connected with a device again and again.
func (v *villain) haunt(ctx context.Context, d *device) {
	for ctx.Err() == nil {
		v.meet(ctx, d)
		_ = v.h.Network().ClosePeer(d.host.ID())
		select {
		case <-ctx.Done():
		case <-time.After(v.between(100*time.Millisecond, time.Second)):
		}
	}
}

// meet does the handshake, and plays the act until the connection ends.
func (v *villain) meet(ctx context.Context, d *device) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dial, done := context.WithTimeout(ctx, 10*time.Second)
	defer done()
	if v.h.Connect(dial, d.info()) != nil {
		return
	}
	st, err := v.h.NewStream(dial, d.host.ID(), swarm.ProtoHello)
	if err != nil {
		return
	}
	defer st.Reset()
	f := &front{villain: v, ctx: ctx, turn: ctx, to: d, control: st, asked: make(chan uint32, 64)}
	r := bufio.NewReader(st)
	hello := wire.AppendHello(nil, wire.Hello{Version: 1, Features: wire.FeaturePacked, Instance: 9, Credential: []byte("fleet")})
	_ = st.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := st.Write(hello); err != nil {
		return
	}
	if typ, _, err := wire.ReadFrame(r, wire.MaxHello, nil); err != nil || typ != wire.TypeHello {
		return
	}
	if !f.say(wire.AppendVerdict(nil, wire.Admitted)) {
		return
	}
	_ = st.SetDeadline(time.Time{})
	var reading sync.WaitGroup
	reading.Go(func() {
		f.listen(r)
		cancel()
	})
	reading.Go(func() { // an act must not wait on a write for ever
		<-ctx.Done()
		_ = st.Reset()
		_ = v.h.Network().ClosePeer(d.host.ID())
	})
	v.act.play(f)
	cancel()
	reading.Wait()
}

// listen notes what the device says.
func (f *front) listen(r *bufio.Reader) {
	for {
		for f.isDeaf() {
			select {
			case <-f.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
		typ, body, err := wire.ReadFrame(r, wire.MaxFrame, nil)
		if err != nil {
			return
		}
		f.villain.mu.Lock()
		if len(f.heard) < heardMost && typ != wire.TypeAdmit {
			f.heard = append(f.heard, wire.AppendFrame(nil, typ, body))
		}
		f.villain.mu.Unlock()
		f.note(typ, body)
	}
}

func (f *front) note(typ wire.Type, body []byte) {
	switch typ {
	case wire.TypeInterest:
		in, err := wire.ParseInterest(body)
		if err != nil || in.ID != f.c.ID {
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.lacks = nil
		for i := range in.Count {
			if in.Flags&wire.FlagAll == 0 && in.Bits[i/8]>>(i%8)&1 == 0 {
				f.lacks = append(f.lacks, i)
			}
		}
	case wire.TypeHave:
		_, list, err := wire.ParseIndexes(body, nil)
		if err != nil {
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.lacks = slices.DeleteFunc(f.lacks, func(i uint32) bool { return slices.Contains(list, i) })
	case wire.TypeGet:
		_, list, _ := wire.ParseIndexes(body, nil)
		for _, i := range list {
			select {
			case f.asked <- i:
			default:
			}
		}
	case wire.TypeLease:
		l, err := wire.ParseLease(body)
		if err != nil {
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.epoch = max(f.epoch, l.Epoch)
	}
}

func (f *front) isDeaf() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.deaf
}

func (f *front) setDeaf(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deaf = on
}

func (f *front) highest() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.epoch
}

// target returns a blob to send: one that was asked for, or else one that the device lacks. ok is false when there is
// none, or the connection has ended.
func (f *front) target(patience time.Duration) (i uint32, ok bool) {
	select {
	case i := <-f.asked:
		return i, true
	case <-f.turn.Done():
		return 0, false
	case <-time.After(patience):
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lacks) == 0 {
		return 0, false
	}
	return f.lacks[f.draw(len(f.lacks))], true
}

func (f *front) say(frames ...[]byte) bool {
	for _, b := range frames {
		if _, err := f.control.Write(b); err != nil {
			return false
		}
	}
	return true
}

// write writes to the blob stream.
func (f *front) write(b ...[]byte) bool {
	if f.blobs == nil {
		st, err := f.h.NewStream(f.ctx, f.to.host.ID(), swarm.ProtoBlob)
		if err != nil {
			return false
		}
		f.blobs = st
	}
	for _, x := range b {
		if _, err := f.blobs.Write(x); err != nil {
			return false
		}
	}
	return true
}

// lied counts a lie for which the device may shun the villain, before it is told.
func (f *front) lied() {
	f.villain.mu.Lock()
	defer f.villain.mu.Unlock()
	f.lies[f.to]++
}

// claim says that the villain has everything.
func (f *front) claim() bool {
	return f.say(wire.AppendInterest(nil, wire.Interest{ID: f.c.ID, Count: uint32(len(f.c.Sums)), Flags: wire.FlagAll}))
}

// crave says that it has nothing and wants everything.
func (f *front) crave() bool {
	n := len(f.c.Sums)
	return f.say(wire.AppendInterest(nil, wire.Interest{ID: f.c.ID, Count: uint32(n), Flags: wire.FlagReceive, Bits: make([]byte, (n+7)/8)}))
}

func (f *front) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-f.turn.Done():
		return false
	}
}

func (v *villain) draw(n int) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.r.IntN(n)
}

func (v *villain) between(a, b time.Duration) time.Duration {
	return a + time.Duration(v.draw(int(b-a)))
}

func (v *villain) liesTo(d *device) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lies[d]
}

// remembered returns a frame that some device sent, or nil.
func (v *villain) remembered() []byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.heard) == 0 {
		return nil
	}
	return v.heard[v.r.IntN(len(v.heard))]
}
