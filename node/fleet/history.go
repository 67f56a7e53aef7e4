package fleet

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"updraft/delta/release"
)

const manifestSuffix = ".manifest"

// History lists the releases of a channel, for all device types, newest first.
func (f *Fleet) History(channel string) ([]*release.Manifest, error) {
	if err := release.CheckChannel(channel); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOptions, err)
	}
	dir := f.path("releases", filepath.FromSlash(channel))
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []*release.Manifest
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), manifestSuffix) || !e.Type().IsRegular() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		m, err := release.Decode(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, e.Name()), err)
		}
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b *release.Manifest) int { return cmp.Compare(b.Sequence, a.Sequence) })
	return list, nil
}

// Channels lists the channels that have a release.
func (f *Fleet) Channels() ([]string, error) {
	repo, err := f.Repo()
	if err != nil {
		return nil, err
	}
	return repo.Channels(), nil
}

// all lists every release that is or was on offer.
func (f *Fleet) all() ([]*release.Manifest, error) {
	repo, err := f.Repo()
	if err != nil {
		return nil, err
	}
	var list []*release.Manifest
	for _, channel := range repo.Channels() {
		history, err := f.History(channel)
		if err != nil {
			return nil, err
		}
		list = append(list, history...)
		current, err := repo.Current(channel)
		if err != nil {
			return nil, err
		}
		for _, m := range current {
			list = append(list, m)
		}
	}
	return list, nil
}

// remember adds a release to the history.
func (f *Fleet) remember(m *release.Manifest, b []byte) error {
	name := f.historyFile(m)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return writeFile(name, b)
}

func (f *Fleet) historyFile(m *release.Manifest) string {
	return f.path("releases", filepath.FromSlash(m.Channel), fmt.Sprintf("%08d-%s%s", m.Sequence, m.Version, manifestSuffix))
}

// reconcile adds to the history what is on offer but not in it: a publish ended
// between the two.
func (f *Fleet) reconcile(repo *release.Repo) error {
	for _, channel := range repo.Channels() {
		current, err := repo.Current(channel)
		if err != nil {
			return err
		}
		for _, m := range current {
			if _, err := os.Lstat(f.historyFile(m)); err == nil {
				continue
			}
			b, err := m.Encode()
			if err != nil {
				return err
			}
			if err := f.remember(m, b); err != nil {
				return err
			}
		}
	}
	return nil
}
