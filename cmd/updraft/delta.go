package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"updraft/delta/patch"
)

func newDelta(u *ui) *cobra.Command {
	c := &cobra.Command{
		Use:   "delta",
		Short: "Make, apply and look into patches of files and directory trees",
		Long: `Make, apply and look into patches of files and directory trees, without a fleet.
A patch of trees restores names, contents, modes, links and times.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newDeltaCreate(u), newDeltaApply(u), newDeltaInfo(u), newDeltaBench(u))
	return c
}

func newDeltaCreate(u *ui) *cobra.Command {
	var o patch.Options
	var force, anyCopy bool
	var profile string
	c := &cobra.Command{
		Use:   "create OLD NEW PATCH",
		Short: "Write the patch that makes NEW from OLD",
		Long: `Write the patch that makes NEW from OLD, which are two files, or block devices, or two
directory trees. PATCH appears when it has been applied to OLD and has made NEW.
The patch of a tree applies to an OLD with the same modes, owners and times, such as one that
apply has made, which restores owners as root only; with --any-copy they do not count, and the
patch carries all of NEW's.`,
		Example: "  updraft delta create app-1.0 app-1.1 app.patch\n  updraft delta create rootfs-1/ rootfs-2/ rootfs.patch",
		Args:    usageArgs(cobra.ExactArgs(3)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := mayReplace(args[2], args[:2]); err != nil {
				return err
			}
			if !force {
				if err := vacant(args[2]); err != nil {
					return err
				}
			}
			if o.Jobs < 0 {
				return usagef("--jobs %d is below 0", o.Jobs)
			}
			var err error
			if o.Profile, err = parseProfile(profile); err != nil {
				return err
			}
			return deltaCreate(cmd.Context(), u, args[0], args[1], args[2], anyCopy, o)
		},
	}
	c.Flags().StringVar(&profile, "profile", "auto", "auto, plain (decodes fast) or dense (smallest)")
	c.Flags().IntVar(&o.Jobs, "jobs", 0, "goroutines at work (default: one for each CPU, and fewer for what is small)")
	indexFlag(c, &o.Memory)
	c.Flags().StringVar(&o.Scratch, "scratch", "", "directory for temporary files (default: the system's)")
	c.Flags().BoolVar(&anyCopy, "any-copy", false, "let the patch of a tree apply to copies with other modes, owners and times")
	c.Flags().BoolVarP(&force, "force", "f", false, "replace PATCH if it exists")
	return c
}

// mayReplace returns an error if there is something at path that a patch of sides may never take
// the place of: one of them, or what is no regular file.
func mayReplace(path string, sides []string) error {
	st, err := os.Stat(path)
	if err != nil {
		return ignoreMissing(err)
	}
	for _, s := range sides {
		if side, err := os.Stat(s); err == nil && os.SameFile(st, side) {
			return usagef("the patch would take the place of %s", s)
		}
	}
	if !st.Mode().IsRegular() {
		return usagef("%s is no regular file, and no patch takes its place", path)
	}
	return nil
}

// indexFlag adds --memory, which bounds the index of a base.
func indexFlag(c *cobra.Command, memory *int64) {
	c.Flags().Var((*sizeFlag)(memory), "memory", "for the index of the base, such as 256MiB; with less, patches are larger (default: 1.5 times old and new, at most 768MiB)")
}

// thrift keeps garbage from growing to the size of the heap while patches are made, most
// of which lives long: old, new and an index. It returns what ends it.
func thrift() func() { return collectAt(20) }

// collectAt has the collector run when the heap has grown by percent. It returns what ends it.
func collectAt(percent int) func() {
	was := debug.SetGCPercent(percent)
	return func() { debug.SetGCPercent(was) }
}

// parseProfile reads the value of --profile.
func parseProfile(s string) (patch.Profile, error) {
	for _, p := range []patch.Profile{patch.Auto, patch.Plain, patch.Dense} {
		if s == p.String() {
			return p, nil
		}
	}
	return 0, usagef("profile %q: it is auto, plain or dense", s)
}

// created is what delta create prints.
type created struct {
	Patch    string  `json:"patch"`
	Bytes    int64   `json:"patch_bytes"`
	OldBytes int64   `json:"old_bytes"`
	NewBytes int64   `json:"new_bytes"`
	Tree     bool    `json:"tree"`
	Profile  string  `json:"profile"`
	Seconds  float64 `json:"seconds"`
}

func deltaCreate(ctx context.Context, u *ui, oldPath, newPath, out string, anyCopy bool, o patch.Options) (err error) {
	old, fresh, err := openPair(oldPath, newPath, anyCopy)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, old.Close(), fresh.Close()) }()
	if old.tree {
		for _, dir := range []string{oldPath, newPath} {
			switch in, err := within(out, dir); {
			case err != nil:
				return err
			case in:
				return usagef("%s lies in %s, which would no longer be what the patch is made for", out, dir)
			}
		}
	}
	c, err := makePatch(ctx, u, old, fresh, out, anyCopy, o)
	if err != nil {
		return err
	}
	return u.result(c, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s, %s of the new %s, in %.1f s.\n", out, size(c.Bytes), percent(c.Bytes, c.NewBytes), size(c.NewBytes), c.Seconds)
	})
}

// makePatch writes the patch and takes it for one only when it makes fresh of old.
func makePatch(ctx context.Context, u *ui, old, fresh *stream, out string, bare bool, o patch.Options) (c created, err error) {
	meter := u.meter(filepath.Base(out))
	defer meter.end("")
	defer thrift()()
	o.OldListing, o.NewListing = old.listing, fresh.listing
	o.Progress = func(done, total int64) { meter.set(done, total, "") }
	start := time.Now()
	c = created{Patch: out, OldBytes: old.Size(), NewBytes: fresh.Size(), Tree: fresh.tree}
	fill := func(w io.Writer) error {
		if fresh.tree {
			if _, err := w.Write(treeHeader(fresh.listing, bare)); err != nil {
				return err
			}
		}
		stats, err := patch.Create(ctx, old, fresh, w, o)
		if err != nil {
			return err
		}
		c.Profile = stats.Profile
		return errors.Join(old.unchanged(), fresh.unchanged())
	}
	check := func(f io.ReaderAt, n int64) error {
		p, err := readPatch(f, n)
		if err != nil {
			return err
		}
		show := func(n int64) { meter.set(n, c.NewBytes, "checking") }
		_, err = patch.Decode(ctx, p, old, &counted{w: io.Discard, show: show}, patch.DecodeOptions{Scratch: o.Scratch})
		if errors.Is(err, patch.ErrCorrupt) || errors.Is(err, patch.ErrBase) {
			err = hinted{fmt.Errorf("%s would not make the new side: %w", out, err), "it may be that a side changed while it was read: try again when nothing writes there"}
		}
		return err
	}
	if c.Bytes, err = writeFile(out, filePerm, fill, check); err != nil {
		return c, err
	}
	meter.end("")
	c.Seconds = time.Since(start).Seconds()
	return c, nil
}

func newDeltaApply(u *ui) *cobra.Command {
	var scratch string
	c := &cobra.Command{
		Use:   "apply OLD PATCH OUT",
		Short: "Make OUT from OLD and a patch",
		Long: `Make OUT from OLD and a patch. OUT must not exist; it appears when all of it has been
verified, a file with OLD's permissions. OLD may be a block device, of which as many bytes
count as the patch is for. Digests are those the patch names: a patch from elsewhere needs a
signature.`,
		Example: "  updraft delta apply app-1.0 app.patch app-1.1",
		Args:    usageArgs(cobra.ExactArgs(3)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := vacant(args[2]); err != nil {
				return err
			}
			return deltaApply(cmd.Context(), u, args[0], args[1], args[2], scratch)
		},
	}
	c.Flags().StringVar(&scratch, "scratch", "", "directory for temporary files (default: the system's)")
	return c
}

// Bytes of memory that applying a patch aims at: what its decoder needs, the entries of trees and the rest of the
// program, and not less than it takes to begin.
const (
	applyRest  = 10 << 20
	applyLeast = 24 << 20
	// applyEntries is for each byte of the listings: an entry takes 20 bytes there, 130 to 200 in memory. Twice as
	// much takes hardly less time, and more than 32 MiB for 20,000 files.
	applyEntries = 8
)

// applyLimit returns the bytes at which the collector is to work without a break, for a decoder's memory and the
// bytes of both listings.
func applyLimit(decoder, listings int64) int64 {
	return max(decoder+applyRest+applyEntries*listings, applyLeast)
}

func deltaApply(ctx context.Context, u *ui, oldPath, patchPath, out, scratch string) (err error) {
	p, err := openPatch(patchPath)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	old, err := openStream(oldPath, p.bare)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, old.Close()) }()
	switch {
	case p.tree && !old.tree:
		return usagef("%s is a patch of directory trees, and %s is a file", patchPath, oldPath)
	case !p.tree && old.tree:
		return usagef("%s is a patch of files, and %s is a directory", patchPath, oldPath)
	}
	info, err := patch.Inspect(p)
	if err != nil {
		return err
	}
	old.limit(info.BaseSize)
	// What a decoder has used and let go of must not be let grow to the size of what it uses.
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(applyLimit(info.Memory, old.listing+p.listing)))
	start := time.Now()
	meter := u.meter(filepath.Base(out))
	defer meter.end("")
	show := func(n int64) { meter.set(n, info.NewSize, "") }
	decode := func(w io.Writer) error {
		_, err := patch.Decode(ctx, p, old, &counted{w: w, show: show}, patch.DecodeOptions{Scratch: scratch})
		return err
	}
	if p.tree {
		err = writeTree(out, p.listing, decode)
	} else {
		_, err = writeFile(out, old.perm, decode, nil)
	}
	if p.tree && !p.bare && errors.Is(err, patch.ErrBase) {
		err = fmt.Errorf("%w; names, contents, modes, owners and times have to be those of the old tree (delta create --any-copy needs names and contents only)", err)
	}
	if err != nil {
		return err
	}
	meter.end("")
	v := map[string]any{"out": out, "bytes": info.NewSize, "sha256": hex.EncodeToString(info.NewSum[:]), "tree": p.tree, "seconds": time.Since(start).Seconds()}
	return u.result(v, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s in %.1f s, sha256 %x.\n", out, size(info.NewSize), time.Since(start).Seconds(), info.NewSum)
	})
}

// counted shows how much has been written.
type counted struct {
	w    io.Writer
	n    int64
	show func(int64)
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	c.show(c.n)
	return n, err
}

// filePerm are the permissions of files that have none to take over.
const filePerm = 0o644

// writeFile writes path durably by way of a temporary file beside it, and returns
// its length. On an error, which may be that of check (nil: none), nothing is left.
func writeFile(path string, perm os.FileMode, fill func(io.Writer) error, check func(f io.ReaderAt, n int64) error) (n int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".updraft-*")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(f.Name())))
		}
	}()
	w := bufio.NewWriterSize(f, 256<<10)
	if err = fill(w); err == nil {
		err = w.Flush()
	}
	if st, serr := f.Stat(); serr == nil {
		n = st.Size()
	}
	if err == nil && check != nil {
		err = check(f, n)
	}
	if err == nil {
		err = errors.Join(f.Chmod(perm), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	return n, os.Rename(f.Name(), path)
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func newDeltaInfo(u *ui) *cobra.Command {
	var segments bool
	var old string
	var top int
	c := &cobra.Command{
		Use:   "info PATCH",
		Short: "Show what a patch needs and gives, and where its bytes go",
		Long: `Show what a patch needs and gives, and where its bytes go. With --files OLD, which is what the
patch applies to, also by file of a directory tree or of a tar archive: how many bytes of the patch are for long
runs of the old ones as they are (copies), for where the rest comes from and how it differs (residual), for
what is new (literals), and for how compressed frames are packed (parses). Compressed data that goes on from one
file to another may be told with the next. With --json, a name that is not UTF-8 is also given byte by byte, in name_hex.`,
		Example: "  updraft delta info app.patch --segments\n  updraft delta info rootfs.patch --files rootfs-1/ --top 0",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := openPatch(args[0])
			if err != nil {
				return err
			}
			defer p.Close() //nolint:errcheck // read only
			i, err := patch.Inspect(p)
			if err != nil {
				return err
			}
			v := infoJSON(p, i, segments)
			var files []fileCost
			more := 0
			if old != "" {
				if files, err = fileCosts(cmd.Context(), p, i, old); err != nil {
					return err
				}
				if top > 0 && len(files) > top {
					files, more = files[:top], len(files)-top
				}
				v["files"], v["more_files"] = files, more
			}
			return u.result(v, func(w io.Writer) {
				printInfo(w, p, i, segments)
				printFileCosts(w, files, more)
			})
		},
	}
	c.Flags().StringVar(&old, "files", "", "with a line for each file, which takes `OLD`, what the patch applies to")
	c.Flags().IntVar(&top, "top", 20, "with --files: for so many files that take the most (0: all)")
	c.Flags().BoolVar(&segments, "segments", false, "with a line for each segment")
	return c
}

func infoJSON(p *patchFile, i patch.Info, segments bool) map[string]any {
	v := map[string]any{
		"tree": p.tree, "patch_bytes": p.whole(), "header_bytes": p.head + i.HeaderBytes,
		"base_bytes": i.BaseSize, "base_sha256": hex.EncodeToString(i.BaseSum[:]),
		"new_bytes": i.NewSize, "new_sha256": hex.EncodeToString(i.NewSum[:]),
		"profile": i.Profile, "decoder_memory": i.Memory, "decoder_file": i.File, "decoder_work": i.Work, "segments": len(i.Segments),
		"recipe_bytes": i.RecipeBytes, "index_bytes": i.IndexBytes, "packed_streams": i.Packed,
	}
	if segments {
		list := []map[string]any{}
		for _, s := range i.Segments {
			list = append(list, map[string]any{"kind": s.Kind, "parse": s.Parse, "shared": s.Shared, "offset": s.Offset, "size": s.Size, "bytes": s.Bytes})
		}
		v["segment_list"] = list
	}
	return v
}

func printInfo(w io.Writer, p *patchFile, i patch.Info, segments bool) {
	kind := "file"
	if p.tree {
		kind = "directory tree"
	}
	by := map[string][3]int64{}
	for _, s := range i.Segments {
		x := by[segmentKind(s)]
		by[segmentKind(s)] = [3]int64{x[0] + 1, x[1] + s.Size, x[2] + s.Bytes}
	}
	rows := [][]string{
		{"of", kind},
		{"patch", size(p.whole()) + ", " + percent(p.whole(), i.NewSize) + " of the new one"},
		{"base", fmt.Sprintf("%s, sha256 %x", size(i.BaseSize), i.BaseSum)},
		{"new", fmt.Sprintf("%s, sha256 %x", size(i.NewSize), i.NewSum)},
		{"profile", i.Profile},
		{"decoder", fmt.Sprintf("%s of memory, %s to work out", size(i.Memory), size(i.Work))},
		{"header", size(p.head + i.HeaderBytes)},
	}
	if i.File > 0 {
		rows = append(rows, []string{"", fmt.Sprintf("%s in a temporary file at most", size(i.File))})
	}
	if i.RecipeBytes > 0 {
		rows = append(rows, []string{"recipe", fmt.Sprintf("%s of the header, to make %d compressed streams; segments are of what is in them", size(i.RecipeBytes), i.Packed)})
	}
	for _, kind := range slices.Sorted(maps.Keys(by)) {
		x := by[kind]
		rows = append(rows, []string{kind, fmt.Sprintf("%d segments give %s and take %s", x[0], size(x[1]), size(x[2]))})
	}
	table(w, rows)
	if !segments {
		return
	}
	rows = [][]string{{"SEGMENT", "KIND", "OFFSET", "SIZE", "BYTES"}}
	for k, s := range i.Segments {
		rows = append(rows, []string{fmt.Sprint(k), segmentKind(s), fmt.Sprint(s.Offset), fmt.Sprint(s.Size), fmt.Sprint(s.Bytes)})
	}
	table(w, rows)
}

// segmentKind is how a segment is shown.
func segmentKind(s patch.SegmentInfo) string {
	switch {
	case s.Parse:
		return s.Kind + " parse"
	case s.Shared:
		return s.Kind + " shared"
	}
	return s.Kind
}
