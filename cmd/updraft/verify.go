package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"updraft/delta"
	"updraft/delta/release"
	"updraft/delta/tree"
	"updraft/node/fleet"
	"updraft/node/identity"
)

func newVerify(u *ui) *cobra.Command {
	var data, enrollment string
	c := &cobra.Command{
		Use:   "verify [DIR]",
		Short: "Check a device's release, a fleet or an origin byte for byte",
		Long: `Without DIR: hash the release in service on this device again and compare it with its
signed manifest; no agent needs to run.

With DIR, a fleet or an origin: check all signatures, expiries and digests, and put
every artifact of every release on offer together as a device without a base would.
For an origin whose fleet is elsewhere give --enrollment: it holds the root of trust;
without it the origin's own first root is believed.`,
		Example: "  updraft verify --data /var/lib/updraft\n  updraft verify fleet\n  updraft verify /srv/www/updates --enrollment till-7.updraft",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return verifyDevice(cmd.Context(), u, data)
			}
			return verifyOrigin(cmd.Context(), u, args[0], enrollment)
		},
	}
	c.Flags().StringVar(&data, "data", "/var/lib/updraft", "data directory of the device")
	c.Flags().StringVar(&enrollment, "enrollment", "", "enrollment whose root of trust the origin must have")
	return c
}

// verdict is what verify found about one release.
type verdict struct {
	Channel string   `json:"channel"`
	Version string   `json:"version"`
	Type    string   `json:"type,omitempty"`
	OK      bool     `json:"ok"`
	Size    int64    `json:"size"`
	Errors  []string `json:"errors"`
}

func (v *verdict) fail(err error) {
	v.OK = false
	// Joined errors stand on lines of their own.
	v.Errors = append(v.Errors, strings.Split(err.Error(), "\n")...)
}

// verdicts prints what was found; anything wrong makes it an error.
func verdicts(u *ui, list []verdict) error {
	bad := 0
	for _, v := range list {
		if !v.OK {
			bad++
		}
	}
	err := u.result(map[string]any{"ok": bad == 0, "releases": list}, func(w io.Writer) {
		for _, v := range list {
			state := "ok"
			if !v.OK {
				state = "WRONG"
			}
			fmt.Fprintf(w, "%-5s  %s  %s\n", state, strings.Join(strings.Fields(v.Channel+" "+v.Version+" "+v.Type), " "), size(v.Size))
			for _, e := range v.Errors {
				fmt.Fprintf(w, "       %s\n", e)
			}
		}
	})
	if err == nil && bad > 0 {
		err = fmt.Errorf("%w: %d of %d releases", errMismatch, bad, len(list))
	}
	return err
}

func verifyDevice(ctx context.Context, u *ui, data string) error {
	to, err := os.Readlink(filepath.Join(data, "current"))
	if errors.Is(err, fs.ErrNotExist) {
		return hinted{fmt.Errorf("no release is in service below %s: %w", data, err), "name the agent's data directory with --data, or wait for its first update"}
	}
	if err != nil {
		return err
	}
	version := filepath.Base(to)
	b, err := readLimited(filepath.Join(data, "state", "manifests", version), release.MaxManifest)
	if err != nil {
		return fmt.Errorf("the manifest of %s: %w", version, err)
	}
	m, err := release.Decode(b)
	if err != nil {
		return err
	}
	v := verdict{Channel: m.Channel, Version: m.Version, OK: true, Errors: []string{}}
	for i := range m.Artifacts {
		a := &m.Artifacts[i]
		meter := u.meter(a.Name)
		err := verifyInstalled(ctx, data, a, meter)
		meter.end("")
		if err := ctx.Err(); err != nil {
			return err
		}
		if err != nil {
			v.fail(fmt.Errorf("%s: %w", a.Name, err))
		}
		v.Size += a.Size
	}
	return verdicts(u, []verdict{v})
}

// verifyInstalled compares an artifact in service with the manifest.
func verifyInstalled(ctx context.Context, data string, a *release.Artifact, m *meter) error {
	path := filepath.Join(data, "current", a.Name)
	if a.Kind != release.File {
		return verifyTree(ctx, data, path, a, m)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	return delta.CheckStream(&watched{end: ctx.Err, r: f, m: m, total: a.Size}, a)
}

// verifyTree compares a directory with the listing the device keeps, whose digest
// the manifest's covers, and says what is there besides.
func verifyTree(ctx context.Context, data, dir string, a *release.Artifact, m *meter) error {
	b, err := readLimited(filepath.Join(data, "state", "listing", hex.EncodeToString(a.Sum[:])), tree.MaxListing)
	if err != nil {
		return fmt.Errorf("the listing: %w", err)
	}
	l, err := tree.Parse(b)
	if err != nil {
		return err
	}
	r, err := tree.Open(dir, l)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // read only
	section := io.NewSectionReader(r, 0, r.Size())
	err = delta.CheckStream(&watched{end: ctx.Err, r: section, m: m, total: a.Size}, a)
	found, werr := tree.Walk(dir)
	if werr != nil {
		return errors.Join(err, werr)
	}
	return errors.Join(err, differences(l, found))
}

// differences compares what a listing says with what a directory holds: names,
// kinds, modes and links. Contents are compared by digest, owners and times belong
// to whoever installed it.
func differences(want, have *tree.Listing) error {
	at := map[string]tree.Entry{}
	for _, e := range have.Entries {
		at[e.Path] = e
	}
	var errs []error
	for _, e := range want.Entries {
		h, ok := at[e.Path]
		delete(at, e.Path)
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%w: %s is missing", errMismatch, e.Path))
		case h.Kind != e.Kind || h.Target != e.Target:
			errs = append(errs, fmt.Errorf("%w: %s is another kind of file", errMismatch, e.Path))
		case h.Mode != e.Granted(h.UID, h.GID):
			errs = append(errs, fmt.Errorf("%w: %s has mode %o instead of %o", errMismatch, e.Path, h.Mode, e.Granted(h.UID, h.GID)))
		}
	}
	for path := range at {
		errs = append(errs, fmt.Errorf("%w: %s does not belong there", errMismatch, path))
	}
	return errors.Join(errs...)
}

// watched shows how far a stream has been read, and ends it when end says so.
type watched struct {
	end         func() error // says whether to go on: a context's Err
	r           io.Reader
	m           *meter
	done, total int64
}

func (w *watched) Read(b []byte) (int, error) {
	if err := w.end(); err != nil {
		return 0, err
	}
	n, err := w.r.Read(b)
	w.done += int64(n)
	w.m.set(w.done, w.total, "")
	return n, err
}

func verifyOrigin(ctx context.Context, u *ui, dir, enrollment string) error {
	origin, root, err := rootOf(u, dir, enrollment)
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp("", "updraft-verify-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp) //nolint:errcheck // temporary
	trust, err := release.OpenTrust(temp, root)
	if err != nil {
		return err
	}
	fetch := func(_ context.Context, name string, limit int64) ([]byte, error) {
		b, err := readLimited(filepath.Join(origin, filepath.FromSlash(name)), limit)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, release.ErrNotFound
		}
		return b, err
	}
	if err := trust.Refresh(ctx, fetch, time.Now()); err != nil {
		return err
	}
	if _, err := trust.Revocations(ctx, fetch, identity.CheckRevocations); err != nil {
		return err
	}
	offers, err := offers(origin)
	if err != nil {
		return err
	}
	show := newBuildProgress(u)
	defer show.end()
	list := []verdict{}
	checked := map[[32]byte]*verdict{}
	for _, o := range offers {
		v := verdict{Channel: o[0], Type: o[1], OK: true, Errors: []string{}}
		m, raw, err := trust.Release(ctx, o[0], o[1], fetch)
		sum := sha256.Sum256(raw)
		switch before := checked[sum]; {
		case err != nil:
			v.fail(err)
		case before != nil:
			v.Version, v.Size, v.OK, v.Errors = before.Version, before.Size, before.OK, before.Errors
		default:
			v.Version = m.Version
			for i := range m.Artifacts {
				v.Size += m.Artifacts[i].Size
			}
			if err := delta.Verify(ctx, origin, m, show.step); err != nil {
				if ctx.Err() != nil {
					return err
				}
				v.fail(err)
			}
			checked[sum] = &v
		}
		list = append(list, v)
	}
	show.end()
	if len(list) == 0 {
		u.note("The metadata is good; nothing is published yet.")
	}
	return verdicts(u, list)
}

// rootOf finds the origin that dir is or holds, and the root of trust for it.
func rootOf(u *ui, dir, enrollment string) (origin string, root []byte, err error) {
	origin = dir
	if f, ferr := fleet.Open(dir, fleet.Options{}); ferr == nil {
		origin = f.Origin()
		repo, err := f.Repo()
		if err != nil {
			return "", nil, err
		}
		root, err = repo.Root()
		return origin, root, err
	} else if !errors.Is(ferr, fleet.ErrNotFleet) {
		return "", nil, ferr
	}
	if enrollment != "" {
		e, err := identity.ReadEnrollment(enrollment)
		if err != nil {
			return "", nil, err
		}
		return origin, e.Root, nil
	}
	root, err = readLimited(filepath.Join(origin, "metadata", "1.root.json"), identity.MaxEnrollment)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, hinted{fmt.Errorf("%s is neither a fleet nor an origin: %w", dir, err), "name the directory that init made, or its origin"}
	}
	u.note("No --enrollment given: the origin's own first root of trust is believed.")
	return origin, root, err
}

// offers lists channel and type of every manifest of an origin.
func offers(origin string) ([][2]string, error) {
	var out [][2]string
	seen := map[[2]string]bool{}
	base := filepath.Join(origin, "targets")
	err := filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		channel, err := filepath.Rel(base, filepath.Dir(path))
		if err != nil {
			return err
		}
		name := d.Name()
		if len(name) < 66 || name[64] != '.' || release.CheckChannel(filepath.ToSlash(channel)) != nil {
			return nil // not a manifest
		}
		o := [2]string{filepath.ToSlash(channel), name[65:]}
		if !seen[o] {
			seen[o] = true
			out = append(out, o)
		}
		return nil
	})
	return out, err
}
