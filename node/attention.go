package node

import "time"

// wordMost is how long a device takes it from others that they get on, while nothing of it arrives here; longer for
// what is large, by wordRate bytes a second.
const (
	wordMost = 3 * time.Minute
	wordRate = 4 << 20
)

// attention tells for how long nothing has moved. What arrives or is made here always counts; what others say of their
// work counts for a while only, or one that says so for ever would keep all the others waiting.
type attention struct {
	here, said  int64
	hereAt, any time.Time // when either has changed last
}

// still returns how long ago anything moved. here and said are numbers that change as things move.
func (a *attention) still(now time.Time, here, said int64, most time.Duration) time.Duration {
	switch {
	case here != a.here || a.any.IsZero():
		a.here, a.hereAt, a.any = here, now, now
	case said != a.said && now.Sub(a.hereAt) < most:
		a.any = now
	}
	a.said = said
	return now.Sub(a.any)
}

// still returns how long ago anything of the update moved, here or, by what members say, elsewhere.
func (u *update) still(a *attention) time.Duration {
	here, said, size := u.worked()+u.n.sw.Counters().Flow, int64(0), int64(0) // a chunk may come for long
	for _, x := range u.arts {
		size += x.art.Size + u.onTheWay(x.art)
		here += x.progress()
		have, _ := u.n.sw.Progress(x.indexID)
		here += int64(have)
	}
	for _, m := range u.n.members() {
		if m.profile.Target == u.digest {
			said += m.profile.Rebuilt
		}
	}
	return a.still(time.Now(), here, said, wordMost+time.Duration(size/wordRate)*time.Second)
}
