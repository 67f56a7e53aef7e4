package fleet

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"updraft/delta/release"
	"updraft/node/identity"
)

// note is what is known of a revocation here, and not published: the origin is public.
type note struct {
	Reason string `json:"reason,omitempty"`
	Before int64  `json:"before,omitempty"` // unix seconds; certificates up to then were revoked before one was made that this revocation is of
}

// Revoke takes the certificates of devices back and publishes the list: other
// devices close their connections with them as soon as they learn of it, and admit
// them no more. Without a reason, one that was given for the same certificates stays.
// A device that is enrolled again, with Replace, is admitted again.
func (f *Fleet) Revoke(reason string, names ...string) (identity.Revocations, error) {
	return f.changeRevocations(func(l identity.Revocations, notes map[string]note) (identity.Revocations, error) {
		for _, name := range names {
			if err := identity.CheckName(name); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrOptions, err)
			}
			d, err := f.device(name)
			if err != nil {
				return nil, err
			}
			var n note
			why := reason
			if r, ok := l.Find(name); ok && d.Enrolled > r.At {
				n.Before = r.At
			} else if ok { // the same one again
				n.Before, why = notes[name].Before, cmp.Or(reason, r.Reason)
			}
			notes[name] = n
			// A certificate may begin a little later than it was signed: see renewDevice.
			l = l.With(identity.Revocation{Name: name, At: max(f.now().Unix(), d.Enrolled), Reason: why})
		}
		return l, nil
	})
}

// Restore undoes the revocation of devices: their certificates are good again, but for those
// that were revoked before the device was enrolled again. ErrReplaced if there are no others.
func (f *Fleet) Restore(names ...string) (identity.Revocations, error) {
	return f.changeRevocations(func(l identity.Revocations, notes map[string]note) (identity.Revocations, error) {
		for _, name := range names {
			r, ok := l.Find(name)
			if !ok {
				return nil, fmt.Errorf("%w: %s is not revoked", ErrUnknown, name)
			}
			d, err := f.device(name)
			if err != nil && !errors.Is(err, ErrUnknown) {
				return nil, err
			}
			if d.Enrolled > r.At {
				return nil, fmt.Errorf("%w: %s, on %s", ErrReplaced, name, time.Unix(d.Enrolled, 0).UTC().Format(time.RFC3339))
			}
			l = l.Without(name)
			if r.At = notes[name].Before; r.At > 0 {
				l = l.With(r)
			}
		}
		return l, nil
	})
}

// Revocations returns the list as it was published last, with the reasons.
func (f *Fleet) Revocations() (identity.Revocations, error) {
	repo, err := f.Repo()
	if err != nil {
		return nil, err
	}
	l, _, err := f.revocations(repo)
	return l, err
}

// revocations returns the list with the reasons, also with those that earlier programs have
// published in it, and the notes by the names of devices.
func (f *Fleet) revocations(repo *release.Repo) (l identity.Revocations, notes map[string]note, err error) {
	b, err := repo.Revocations()
	if err == nil && b != nil {
		l, err = identity.ParseRevocations(b)
	}
	if err != nil {
		return nil, nil, err
	}
	notes = map[string]note{}
	b, err = os.ReadFile(f.path(notesFile))
	if err == nil {
		err = json.Unmarshal(b, &notes)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s: %w", f.path(notesFile), err)
	}
	for i := range l {
		l[i].Reason = or(l[i].Reason, notes[l[i].Name].Reason)
	}
	return l, notes, nil
}

func (f *Fleet) changeRevocations(change func(identity.Revocations, map[string]note) (identity.Revocations, error)) (l identity.Revocations, err error) {
	err = f.locked(func() error {
		repo, err := f.Repo()
		if err != nil {
			return err
		}
		var notes map[string]note
		if l, notes, err = f.revocations(repo); err != nil {
			return err
		}
		if l, err = change(l, notes); err != nil {
			return err
		}
		if _, err := l.Encode(); err != nil { // with the reasons
			return fmt.Errorf("%w: %w", ErrOptions, err)
		}
		public, kept := slices.Clone(l), map[string]note{}
		for i, r := range l {
			n := notes[r.Name]
			n.Reason, public[i].Reason = r.Reason, ""
			kept[r.Name] = n
		}
		b, err := json.MarshalIndent(kept, "", "  ")
		if err != nil {
			return err
		}
		if err := identity.WriteSecret(f.path(notesFile), append(b, '\n')); err != nil {
			return err
		}
		if b, err = public.Encode(); err != nil {
			return err
		}
		return repo.SetRevocations(b)
	})
	return l, err
}
