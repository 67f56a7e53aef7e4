package swarm

import (
	"encoding/binary"
	"errors"
	"time"

	"updraft/swarm/wire"
)

// What a member says is read no faster than it can be of use: what it says faster waits in its own connection. A device
// in the middle of a release says some hundred units a second, one that has just joined some thousand at once.
const (
	meterRate  = 4000  // units each second
	meterBurst = 20000 // units at once
)

// errGone ends what is done for a member that is no longer one.
var errGone = errors.New("swarm: dropped")

// meter is a bucket of units that fills with time. It belongs to the reader of a control stream.
type meter struct {
	units float64
	at    time.Time
}

func newMeter() *meter { return &meter{units: meterBurst, at: time.Now()} }

// frameCost is the work that a frame makes, in units: of its bytes, of the blobs that it speaks of, of what hears of it.
func frameCost(typ wire.Type, body []byte) int {
	cost := 1 + len(body)/64
	switch typ {
	case wire.TypeInterest:
		if len(body) >= 36 {
			cost += int(min(binary.LittleEndian.Uint32(body[32:]), wire.MaxBlobs)) / 256
		}
	case wire.TypeLease, wire.TypeRumor, wire.TypeProfile:
		cost += 15
	}
	return cost
}

// await takes cost units, and waits until they are there. It returns false when the member is gone meanwhile.
func (p *meter) await(m *member, cost int) bool {
	now := time.Now()
	p.units = min(p.units+now.Sub(p.at).Seconds()*meterRate, meterBurst) - float64(cost)
	p.at = now
	if p.units >= 0 {
		return true
	}
	t := time.NewTimer(time.Duration(-p.units / meterRate * float64(time.Second)))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-m.gone:
		return false
	}
}
