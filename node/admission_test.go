package node_test

import (
	"bufio"
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/node/fleet"
	"updraft/node/identity"
	"updraft/node/report"
	"updraft/swarm"
	"updraft/swarm/wire"
)

// enrollment makes a device of a fleet without an agent.
func enrollment(t *testing.T, f *fleet.Fleet, o fleet.EnrollOptions) *identity.Enrollment {
	t.Helper()
	o.Type = "lab"
	e, err := f.Enroll(o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestAdmission: whoever is not a device of this fleet and site is told so, or not
// even that, and cut off, and can ask for nothing before.
func TestAdmission(t *testing.T) {
	t.Parallel()
	s, a := installed(t)
	other, err := fleet.Init(filepath.Join(s.dir, "other"), fleet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	good := enrollment(t, s.fleet, fleet.EnrollOptions{Name: "good", Site: "lab"})
	for _, c := range []struct {
		name string
		key  *identity.Enrollment // whose key the peer has
		cert []byte
		says string // in status
	}{
		{"no certificate", good, nil, identity.ErrMalformed.Error()},
		{"junk for a certificate", good, bytes.Repeat([]byte{0xa1}, 100), identity.ErrMalformed.Error()},
		{"certificate of another fleet", enrollment(t, other, fleet.EnrollOptions{Name: "x", Site: "lab"}), nil, identity.ErrForeign.Error()},
		{"certificate for another site", enrollment(t, s.fleet, fleet.EnrollOptions{Name: "y", Site: "elsewhere"}), nil, `y is a device of site "elsewhere"`},
		{"stolen certificate without its key", enrollment(t, s.fleet, fleet.EnrollOptions{Name: "z", Site: "lab"}), good.Cert, "certificate of good with the key of another"},
		{"one byte changed", good, append(bytes.Clone(good.Cert[:len(good.Cert)-1]), good.Cert[len(good.Cert)-1]^1), identity.ErrForeign.Error()},
		{"longer than allowed", good, make([]byte, 64<<10), ""},
	} {
		if c.cert == nil && c.key != good {
			c.cert = c.key.Cert
		}
		if v := a.meets(t, c.key, c.cert); v == wire.Admitted {
			t.Errorf("%s: admitted", c.name)
		}
		if p := a.problem("stranger"); !strings.Contains(p.Text, c.says) || p.Hint == "" {
			t.Errorf("%s: status says %+v", c.name, p)
		}
	}
	if st := a.node.Status(); len(st.Problems) != 1 || st.Current != "1.0.0" {
		t.Errorf("%s in service, problems %+v", st.Current, st.Problems)
	}
	if v := a.meets(t, good, good.Cert); v != wire.Admitted {
		t.Errorf("a device of the site: verdict %d", v)
	}
	a.await("alone again", func(st report.Status) bool { return st.Peers == 0 })
}

// meets dials the agent, says hello, and returns the verdict; 0 if there is none. It
// asks for a file before and after, which only a member may have.
func (a *agent) meets(t *testing.T, e *identity.Enrollment, credential []byte) wire.Verdict {
	t.Helper()
	key, _, err := e.PrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	h, err := swarm.NewHost(swarm.HostConfig{Key: key, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	to, err := peer.AddrInfoFromString(a.node.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := h.Connect(ctx, *to); err != nil {
		t.Fatal(err)
	}
	asks := func() {
		st, err := h.NewStream(ctx, to.ID, swarm.ProtoFile)
		if err != nil {
			return
		}
		defer st.Reset()
		_ = st.SetDeadline(time.Now().Add(300 * time.Millisecond)) // one that is not refused waits for a hello
		if _, err := st.Write(wire.AppendRequest(nil, "metadata/timestamp.json", nil)); err != nil {
			return
		}
		if _, b, err := wire.ReadAnswer(bufio.NewReader(st), 1<<16); err == nil && len(b) > 0 {
			t.Errorf("a stranger was answered %d bytes", len(b))
		}
	}
	asks()
	st, err := h.NewStream(ctx, to.ID, swarm.ProtoHello)
	if err != nil {
		t.Fatal(err)
	}
	_ = st.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = st.Write(wire.AppendHello(nil, wire.Hello{Version: wire.Version, Instance: 7, Credential: credential}))
	typ, body, err := wire.ReadFrame(bufio.NewReader(st), wire.MaxHello, nil)
	if err == nil && typ == wire.TypeHello { // it would have us
		return wire.Admitted
	}
	v := wire.Verdict(0)
	if err == nil && typ == wire.TypeAdmit {
		if v, err = wire.ParseVerdict(body); err != nil {
			t.Error(err)
		}
	}
	asks() // over a new connection, if the one before is closed already: a stranger's has 10 s
	for end := time.Now().Add(20 * time.Second); h.Network().Connectedness(to.ID) == network.Connected; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Error("the connection stays")
			break
		}
	}
	return v
}
