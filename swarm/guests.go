package swarm

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	manet "github.com/multiformats/go-multiaddr/net"
)

// ofOne is how many strangers of one address are nothing unusual: that many devices may start on a machine.
const ofOne = perAddress / 3

// guests are the connections that have come in, half-open ones too. Beyond most of them, each that comes takes the place
// of one that is no member's: the oldest of the address that has the most, if those are more than ofOne, else the oldest
// of all. So who opens many closes his own, from however many addresses, and a device that says hello at once gets in.
// Safe for concurrent use.
type guests struct {
	most int // less than the resource manager lets in: what is closed takes a moment to end

	mu        sync.Mutex // guards what follows
	n         int        // those that have not ended
	strangers []*guest   // those that are no member's and were not told to end, oldest first
}

// guest is the scope of a connection that has come in; libp2p ends it after the connection.
type guest struct {
	network.ConnManagementScope
	of   *guests
	conn manet.Conn
	ip   netip.Addr
	done sync.Once
}

// enter notes a connection that the resource manager has let in, and closes one if there are too many.
func (gs *guests) enter(c manet.Conn, scope network.ConnManagementScope) *guest {
	g := &guest{ConnManagementScope: scope, of: gs, conn: c, ip: ipOf(c.RemoteMultiaddr())}
	if out := gs.add(g); out != nil {
		_ = out.conn.Close() // libp2p, which reads from it, does the rest
	}
	return g
}

// add returns who is to go.
func (gs *guests) add(g *guest) *guest {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	gs.n++
	gs.strangers = append(gs.strangers, g)
	if gs.n <= gs.most {
		return nil
	}
	of := map[netip.Addr]int{}
	for _, s := range gs.strangers {
		of[s.ip]++
	}
	out := gs.strangers[0]
	for _, s := range gs.strangers {
		if of[s.ip] > max(ofOne, of[out.ip]) {
			out = s
		}
	}
	gs.settleLocked(out)
	return out
}

func (gs *guests) settleLocked(g *guest) {
	gs.strangers = slices.DeleteFunc(gs.strangers, func(s *guest) bool { return s == g })
}

// admit keeps the connection, which is a member's now, whoever comes.
func (g *guest) admit() {
	g.of.mu.Lock()
	defer g.of.mu.Unlock()
	g.of.settleLocked(g)
}

// Done is part of network.ConnManagementScope. It may be called again.
func (g *guest) Done() {
	g.done.Do(func() {
		g.of.mu.Lock()
		defer g.of.mu.Unlock()
		g.of.settleLocked(g)
		g.of.n--
	})
	g.ConnManagementScope.Done()
}
