package fleet

import (
	"fmt"

	"updraft/delta/release"
	"updraft/node/identity"
)

// Revoke takes the certificates of devices back and publishes the list: other
// devices close their connections with them as soon as they learn of it, and admit
// them no more. A device that is enrolled again, with Replace, is admitted again.
func (f *Fleet) Revoke(reason string, names ...string) (identity.Revocations, error) {
	return f.changeRevocations(func(l identity.Revocations) (identity.Revocations, error) {
		for _, name := range names {
			if err := identity.CheckName(name); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrOptions, err)
			}
			d, err := f.device(name)
			if err != nil {
				return nil, err
			}
			// A certificate may begin a little later than it was signed: see renewDevice.
			l = l.With(identity.Revocation{Name: name, At: max(f.now().Unix(), d.Enrolled), Reason: reason})
		}
		return l, nil
	})
}

// Restore undoes the revocation of devices: their certificates are good again.
func (f *Fleet) Restore(names ...string) (identity.Revocations, error) {
	return f.changeRevocations(func(l identity.Revocations) (identity.Revocations, error) {
		for _, name := range names {
			if _, ok := l.Find(name); !ok {
				return nil, fmt.Errorf("%w: %s is not revoked", ErrUnknown, name)
			}
			l = l.Without(name)
		}
		return l, nil
	})
}

// Revocations returns the list as it was published last.
func (f *Fleet) Revocations() (identity.Revocations, error) {
	repo, err := f.Repo()
	if err != nil {
		return nil, err
	}
	return revocations(repo)
}

func revocations(repo *release.Repo) (identity.Revocations, error) {
	b, err := repo.Revocations()
	if err != nil || b == nil {
		return nil, err
	}
	return identity.ParseRevocations(b)
}

func (f *Fleet) changeRevocations(change func(identity.Revocations) (identity.Revocations, error)) (l identity.Revocations, err error) {
	err = f.locked(func() error {
		repo, err := f.Repo()
		if err != nil {
			return err
		}
		if l, err = revocations(repo); err != nil {
			return err
		}
		if l, err = change(l); err != nil {
			return err
		}
		b, err := l.Encode()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrOptions, err)
		}
		return repo.SetRevocations(b)
	})
	return l, err
}
