package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"updraft/delta/release"
	"updraft/swarm/origin"
)

// fetch is the release.Fetcher that asks the origin.
func (n *Node) fetch(ctx context.Context, name string, limit int64) ([]byte, error) {
	b, err := n.origin.Get(ctx, name, limit)
	switch {
	case errors.Is(err, origin.ErrNotFound):
		return nil, fmt.Errorf("%w: %w", release.ErrNotFound, err)
	case errors.Is(err, origin.ErrTooLarge):
		return nil, fmt.Errorf("%w: %w", release.ErrTooLarge, err)
	}
	return b, err
}

// early is a file asked for before its turn.
type early struct {
	name string
	done chan struct{} // closed when what follows is set
	b    []byte
	err  error
}

// ahead asks the origin for files at the same time as for what is asked of it next. The
// fetcher that it returns has them; stop gives up those that have not come.
func (n *Node) ahead(ctx context.Context, names ...string) (fetch release.Fetcher, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	list := make([]*early, len(names))
	for i, name := range names {
		e := &early{name: name, done: make(chan struct{})}
		list[i] = e
		wg.Go(func() {
			defer close(e.done)
			e.b, e.err = n.fetch(ctx, e.name, release.MaxBundle)
		})
	}
	fetch = func(ctx context.Context, name string, limit int64) ([]byte, error) {
		for _, e := range list {
			if e.name != name {
				continue
			}
			select {
			case <-e.done:
				return e.b, e.err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return n.fetch(ctx, name, limit)
	}
	return fetch, func() { cancel(); wg.Wait() }
}

// syncAtOnce refreshes the metadata from the origin. From one that is far away, or of
// which that is not known yet, all that may be needed is asked for at once.
func (n *Node) syncAtOnce(ctx context.Context) error {
	if !n.origin.Far() {
		return n.sync(ctx, n.fetch)
	}
	bundle := release.BundleName(n.enr.Channel)
	names := []string{bundle}
	if root, ok := n.trust.NextRoot(time.Now()); ok {
		names = append(names, root)
	}
	fetch, stop := n.ahead(ctx, names...)
	defer stop()
	b := release.NewBundled(func(ctx context.Context) ([]byte, error) { return fetch(ctx, bundle, release.MaxBundle) }, fetch)
	err := n.sync(ctx, b.Fetch)
	if err != nil && b.Used() && ctx.Err() == nil {
		n.log.Warn("the origin's bundle is not used", "err", err)
		err = n.sync(ctx, n.fetch)
	}
	return err
}
