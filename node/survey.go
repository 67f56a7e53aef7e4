package node

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"updraft/discovery"
	"updraft/node/identity"
	"updraft/node/report"
)

const (
	callStatus    = "status"        // of an operator; answered with a report.Status
	surveyTimeout = 5 * time.Second // for one device's answer
)

// ErrOperator reports a question that only an operator may ask, by certificate.
var ErrOperator = errors.New("node: that takes a certificate with the role of an operator")

// Answer is what a device of the site says of itself.
type Answer struct {
	Name   string         `json:"name"` // by its certificate
	Status *report.Status `json:"status,omitempty"`
	Error  string         `json:"error,omitempty"` // why there is no status
}

// answerStatus tells an operator how this device is.
func (n *Node) answerStatus(from peer.ID) ([]byte, error) {
	c := n.certOf(from)
	if c == nil || !c.Has(identity.RoleOperator) {
		return nil, ErrOperator
	}
	n.log.Info("status told", "operator", c.Name)
	return n.Status().Encode()
}

// Survey asks all devices of the site how they are, in the place of Run: it joins the
// site, brings nothing and installs nothing. It ends when no further device has come
// for the time quiet, or with ctx. The answers are in the order of names. This device's
// certificate must have the role of an operator: ErrOperator.
func (n *Node) Survey(ctx context.Context, quiet time.Duration) (list []Answer, err error) {
	defer func() { err = errors.Join(err, n.Close()) }()
	if !n.own().Has(identity.RoleOperator) {
		return nil, ErrOperator
	}
	sources, err := n.sources()
	if err != nil {
		return nil, err
	}
	n.table = discovery.NewTable(discovery.TableConfig{Notify: n.found, Log: n.log})
	run, stop := context.WithCancel(ctx)
	defer stop()
	g, run := errgroup.WithContext(run)
	g.Go(func() error { return n.sw.Run(run) })
	g.Go(func() error { return n.table.Run(run, n.self, sources...) })
	g.Go(func() error { return n.follow(run) }) // who is revoked is not believed
	g.Go(func() error {
		defer stop()
		list = n.survey(run, quiet)
		return nil
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	return list, nil
}

func (n *Node) survey(ctx context.Context, quiet time.Duration) []Answer {
	var mu sync.Mutex // guards answers
	answers := map[peer.ID]Answer{}
	asked := map[peer.ID]bool{}
	var wg sync.WaitGroup
	idle := time.NewTimer(quiet)
	defer idle.Stop()
	for more := true; more; {
		changed := n.sw.Changed()
		for _, m := range n.sw.Members() {
			if asked[m.ID] {
				continue
			}
			asked[m.ID] = true
			idle.Reset(quiet)
			wg.Go(func() {
				a := n.askStatus(ctx, m.ID, m.Name)
				mu.Lock()
				defer mu.Unlock()
				answers[m.ID] = a
			})
		}
		select {
		case <-ctx.Done():
			more = false
		case <-idle.C:
			more = false
		case <-changed:
		}
	}
	wg.Wait()
	var list []Answer
	for id, a := range answers {
		n.mu.Lock()
		c := n.certs[id]
		gone := c == nil || n.revoked.Check(c) != nil
		n.mu.Unlock()
		if !gone {
			list = append(list, a)
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list
}

func (n *Node) askStatus(ctx context.Context, id peer.ID, name string) Answer {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	b, err := n.sw.Invoke(ctx, id, callStatus, nil)
	var st *report.Status
	if err == nil {
		st, err = report.ParseStatus(b)
	}
	if err == nil && st.Name != name {
		st, err = nil, fmt.Errorf("%w: it says that it is %.80q", report.ErrStatus, st.Name)
	}
	if err != nil {
		return Answer{Name: name, Error: err.Error()}
	}
	return Answer{Name: name, Status: st}
}
