//go:build netns

package testnet_test

import (
	"testing"
	"time"

	"updraft/testnet"
)

// TestNetnsDroppingUplink has an uplink that is away for some seconds again and again, as LTE is: every byte comes
// once, but for those that were on the way, and soon after the link is back the download goes on.
func TestNetnsDroppingUplink(t *testing.T) {
	const away = 8 * time.Second
	in := prepare(t)
	s := site(t, in, testnet.Config{Devices: 5})
	r := publish(t, s, "1.0.0", noise(t, 32<<20))
	boot(t, s)
	shares := []float64{0.1, 0.3, 0.5, 0.7, 0.9}
	var gone, back time.Time // when the link went, and when it came back
	var idle []time.Duration // from there until something has come
	var at int64
	drops := 0
	cut := func(off bool) {
		if err := s.Lab().Cut(t.Context(), off); err != nil {
			t.Fatal(err)
		}
	}
	out, err := s.Rollout(t.Context(), r, testnet.RolloutOptions{Timeout: 4 * time.Minute, Progress: func(p testnet.Snapshot) {
		switch {
		case !gone.IsZero() && time.Since(gone) < away:
		case !gone.IsZero():
			cut(false)
			gone, back, at = time.Time{}, time.Now(), p.Uplink
		case !back.IsZero() && p.Uplink > at+64<<10:
			idle = append(idle, time.Since(back))
			back = time.Time{}
		case drops < len(shares) && float64(p.Uplink) > shares[drops]*float64(p.Needed):
			cut(true)
			gone = time.Now()
			drops++
		}
	}})
	if err != nil || out.Converged != out.Devices {
		t.Fatalf("%v: %+v", err, out)
	}
	t.Logf("uplink %.4f of what was needed, last %.2f s with %d drops of %v; the download went on after %v", out.UplinkRatio, out.LastS, drops, away, idle)
	if drops < len(shares) {
		t.Errorf("the uplink was cut %d times, not %d", drops, len(shares))
	}
	if limit := out.NeededBytes*106/100 + int64(drops)<<20; out.UplinkBytes > limit {
		t.Errorf("the uplink carried %d bytes, at most %d are allowed", out.UplinkBytes, limit)
	}
}
