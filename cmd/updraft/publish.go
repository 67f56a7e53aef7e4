package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"updraft/delta"
	"updraft/delta/chunk"
	"updraft/delta/patch"
	"updraft/delta/release"
	"updraft/delta/tree"
	"updraft/node/fleet"
)

type publishOptions struct {
	fleet  string
	deltas int
	bases  []string
	jobs   int
	patch  patch.Options
	what   fleet.PublishOptions
}

func newPublish(u *ui) *cobra.Command {
	var o publishOptions
	c := &cobra.Command{
		Use:   "publish --fleet DIR --version VERSION PATH...",
		Short: "Make a release of files and directories",
		Long: `Make a release of the files, images and directory trees named: cut them into
chunks, make patches against the channel's earlier releases, pack, sign, and put all
of it into DIR/origin. For sites that are further behind, the patches of earlier releases
are used again, several in a row. Devices find each PATH under its own last name. The release
appears at once or not at all: an interrupted publish leaves the origin as it was.

After an interruption or a failure the same command goes on: chunks and whole patches that were
finished are used again where contents, options and program are the same, and the release is the
one that would have come without. They lie in DIR/staging until a publish succeeds, or fails
because the disk is full.`,
		Example: `  updraft publish --fleet fleet --version 1.0.0 ./app
  updraft publish --fleet fleet --version 1.4.0 --deltas 1 --base 1.0.2 ./app
  updraft publish --fleet fleet --channel kiosk/canary --version 2.1.0-rc1 --type rpi4 --type rpi5 rootfs.img ./assets`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return publish(cmd.Context(), u, o, args)
		},
	}
	f := c.Flags()
	f.StringVar(&o.fleet, "fleet", "", "directory of the fleet (required)")
	f.StringVar(&o.what.Channel, "channel", "stable", "channel, such as stable or kiosk/canary")
	f.StringVar(&o.what.Version, "version", "", "version, such as 1.2.0 (required)")
	f.StringSliceVar(&o.what.Types, "type", nil, "device type the release is for; may be repeated (default: any)")
	f.IntVar(&o.deltas, "deltas", 3, "for how many earlier releases patches are made")
	f.StringSliceVar(&o.bases, "base", nil, "earlier version for which a patch is made too, such as one that much of the fleet runs; may be repeated")
	f.IntVar(&o.jobs, "jobs", 0, "compressors at work at once (default: one for each CPU; at most 8)")
	indexFlag(c, &o.patch.Memory)
	required(c, "fleet", "version")
	return c
}

// required makes a missing flag an error of usage.
func required(c *cobra.Command, names ...string) {
	run := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		for _, n := range names {
			if !cmd.Flags().Changed(n) {
				return usagef("--%s is missing", n)
			}
		}
		return run(cmd, args)
	}
}

// published is what publish prints.
type published struct {
	Channel   string              `json:"channel"`
	Version   string              `json:"version"`
	Sequence  uint64              `json:"sequence"`
	Types     []string            `json:"types"`
	Size      int64               `json:"size"`           // bytes of the artifacts
	FullBytes int64               `json:"full_bytes"`     // what a site without a base downloads
	PackBytes int64               `json:"pack_bytes"`     // of the new pack
	Metadata  int64               `json:"metadata_bytes"` // signed files that are new, with the manifest
	Chunks    int                 `json:"resumed_chunks"` // in the new pack, of an interrupted run
	Patches   int                 `json:"resumed_patches"`
	Artifacts []publishedArtifact `json:"artifacts"`
	Seconds   float64             `json:"seconds"`
}

type publishedArtifact struct {
	Name      string           `json:"name"`
	Kind      string           `json:"kind"`
	Size      int64            `json:"size"`
	CID       string           `json:"cid"`
	FullBytes int64            `json:"full_bytes"` // chunks as stored, index and pack map
	NewBytes  int64            `json:"new_bytes"`  // plain size of the chunks that no earlier release has
	Patches   []publishedPatch `json:"patches"`
}

type publishedPatch struct {
	Base  string `json:"base_version"`
	Bytes int64  `json:"bytes"`           // what a site that has the base downloads
	Patch bool   `json:"patch"`           // as a patch; false: as chunks, which are no more
	Chain int    `json:"chain,omitempty"` // as so many patches, of which earlier releases made all but the last
}

func publish(ctx context.Context, u *ui, o publishOptions, paths []string) error {
	if o.deltas < 0 {
		return usagef("--deltas %d is below 0", o.deltas)
	}
	if o.jobs < 0 {
		return usagef("--jobs %d is below 0", o.jobs)
	}
	in := make([]delta.Input, len(paths))
	for i, p := range paths {
		if _, err := os.Stat(p); err != nil {
			return err
		}
		in[i].Path = p
	}
	f, err := fleet.Open(o.fleet, fleet.Options{Keys: u.keys()})
	if err != nil {
		return err
	}
	for _, p := range paths {
		if err := f.CheckPublic(p); err != nil {
			return err
		}
	}
	defer thrift()()
	start := time.Now()
	before := signedFiles(f.Origin())
	show := newBuildProgress(u)
	var stats delta.BuildStats
	m, err := f.Publish(ctx, o.what, func(ctx context.Context, j fleet.Job) (*release.Manifest, error) {
		for _, v := range o.bases {
			if !slices.ContainsFunc(j.Previous, func(m *release.Manifest) bool { return m.Version == v }) {
				return nil, usagef("--base %s: no such release on %s for these types", v, j.Channel)
			}
		}
		m, st, err := delta.Build(ctx, in, delta.BuildOptions{
			Out: j.Staging, Origin: j.Origin, Channel: j.Channel, Version: j.Version, Types: j.Types, Sequence: j.Sequence,
			Created: j.Created, Previous: j.Previous, Deltas: o.deltas, Bases: o.bases, Jobs: o.jobs, Scratch: j.Scratch, Progress: show.step,
			Patch: o.patch, Maker: maker(),
		})
		stats = st
		return m, err
	})
	show.end()
	if err != nil && ctx.Err() != nil {
		return hinted{err, "run the same command again: it goes on from what is finished"}
	}
	if errors.Is(err, tree.ErrListing) {
		return hinted{err, "publish its parts, each by itself"}
	}
	if err != nil {
		return err
	}
	p, err := summary(f.Origin(), m, stats)
	if err != nil {
		return err
	}
	for name, id := range signedFiles(f.Origin()) {
		if before[name] != id {
			p.Metadata += id.size
		}
	}
	p.Seconds = time.Since(start).Seconds()
	return u.result(p, p.print)
}

// summary says what a site will have to download.
func summary(origin string, m *release.Manifest, stats delta.BuildStats) (*published, error) {
	p := &published{Channel: m.Channel, Version: m.Version, Sequence: m.Sequence, Types: append([]string{}, m.Types...), PackBytes: stats.PackSize}
	for i := range m.Artifacts {
		a := &m.Artifacts[i]
		pa := publishedArtifact{Name: a.Name, Kind: string(a.Kind), Size: a.Size, CID: chunk.CID(a.Sum).String(), Patches: []publishedPatch{}}
		pm, err := delta.ReadPackMap(origin, m, a)
		if err != nil {
			return nil, err
		}
		seen := map[delta.Location]bool{}
		for _, l := range pm {
			if !seen[l] {
				seen[l] = true
				pa.FullBytes += int64(l.Len)
			}
		}
		pa.FullBytes += a.MapSize + 35*a.Chunks()
		if i < len(stats.Artifacts) {
			st := stats.Artifacts[i]
			pa.NewBytes = st.NewBytes
			p.Chunks += st.Resumed
			for _, q := range st.Patches {
				pp := publishedPatch{Base: q.BaseVersion, Bytes: q.Chunks}
				if q.Kept {
					pp.Bytes, pp.Patch = q.Size, true
				}
				pa.Patches = append(pa.Patches, pp)
				if q.Resumed {
					p.Patches++
				}
			}
			for _, c := range st.Chains {
				pa.Patches = append(pa.Patches, publishedPatch{Base: c.BaseVersion, Bytes: c.Size, Patch: true, Chain: c.Patches})
			}
		}
		p.Size += a.Size
		p.FullBytes += pa.FullBytes
		p.Artifacts = append(p.Artifacts, pa)
	}
	return p, nil
}

func (p *published) print(w io.Writer) {
	fmt.Fprintf(w, "Published %s %s (release %d of the channel) in %.1f s.\n\n", p.Channel, p.Version, p.Sequence, p.Seconds)
	rows := [][]string{{"ARTIFACT", "KIND", "SIZE", "FROM", "A SITE DOWNLOADS", "OF THE RELEASE"}}
	for _, a := range p.Artifacts {
		name, kind, bytes := a.Name, a.Kind, size(a.Size)
		for _, q := range a.Patches {
			how := size(q.Bytes)
			switch {
			case !q.Patch:
				how += " as chunks"
			case q.Chain > 1:
				how += fmt.Sprintf(" in %d patches", q.Chain)
			}
			rows = append(rows, []string{name, kind, bytes, q.Base, how, percent(q.Bytes, a.Size)})
			name, kind, bytes = "", "", ""
		}
		rows = append(rows, []string{name, kind, bytes, "nothing", size(a.FullBytes), percent(a.FullBytes, a.Size)})
	}
	table(w, rows)
	fmt.Fprintf(w, "\nNew in the origin: a pack of %s, metadata of %s.\n", size(p.PackBytes), size(p.Metadata))
	if p.Chunks+p.Patches > 0 {
		fmt.Fprintf(w, "Of an interrupted run, %s and %s are used again.\n", count(p.Chunks, "chunk", "chunks"), count(p.Patches, "patch", "patches"))
	}
}

// count prints a number of things.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// maker names this program by the bytes it consists of: what another one has made, of
// a patch of the same, may differ. A program that cannot read itself has a name that
// nobody had before.
func maker() string {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return rand.Text()
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return rand.Text()
	}
	return hex.EncodeToString(h.Sum(nil))
}

func percent(part, whole int64) string {
	if whole <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}

// fileID tells versions of a signed file apart.
type fileID struct {
	size int64
	time time.Time
}

// signedFiles lists the metadata and manifests of an origin. What cannot be read is
// left out: the list serves a summary only.
func signedFiles(origin string) map[string]fileID {
	out := map[string]fileID{}
	for _, dir := range []string{"metadata", "targets"} {
		_ = filepath.WalkDir(filepath.Join(origin, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil //nolint:nilerr // see above
			}
			if st, err := d.Info(); err == nil {
				out[path] = fileID{st.Size(), st.ModTime()}
			}
			return nil
		})
	}
	return out
}

// buildProgress shows the stages of a build.
type buildProgress struct {
	u     *ui
	now   *meter
	title string
	start time.Time
}

func newBuildProgress(u *ui) *buildProgress { return &buildProgress{u: u} }

func (b *buildProgress) step(p delta.Progress) {
	title := p.Artifact + ": " + string(p.Stage)
	if p.Base != "" {
		title += " " + p.Base
	}
	if title != b.title {
		b.end()
		b.title, b.start = title, time.Now()
		b.now = b.u.meter(title)
	}
	b.now.set(p.Done, p.Total, "")
	if p.Patch == nil {
		return
	}
	text := fmt.Sprintf("patch of %s saves %s", size(p.Patch.Size), size(p.Patch.Chunks-p.Patch.Size))
	if !p.Patch.Kept {
		text = "patch dropped: the new chunks are no more"
	}
	if p.Patch.Resumed {
		text += ", made by an interrupted run"
	}
	b.now.end(text)
	b.u.note("%s from %s: %s", p.Artifact, p.Patch.BaseVersion, text)
}

func (b *buildProgress) end() {
	if b.now != nil {
		b.now.end("")
		b.now = nil
	}
}
