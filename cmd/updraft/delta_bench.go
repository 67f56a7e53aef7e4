package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

func newDeltaBench(u *ui) *cobra.Command {
	var b bench
	c := &cobra.Command{
		Use:   "bench DIR...",
		Short: "Compare patches and their cost with those of other tools",
		Long: `Patch every pair below DIR (files or directory trees named old and new, beside each other;
links are followed) with updraft and with those of bsdiff, xdelta3, zstd --patch-from and hdiffz that are
installed, apply each patch and compare the result. A directory tree is a tar for the
other tools. Each step is a process of its own, whose CPU time and peak memory count (a peak
below about 24 MB cannot be told); what updraft takes to create a patch is with its check;
speeds are bytes of the new side. At the end stands the geometric mean of updraft's
patches over the smallest of the other tools', patches below 4 kB counting as 4 kB, and of how
many pairs it is. The exit code is 4 if a patch of updraft's failed.`,
		Example: "  updraft delta bench corpus/\n  updraft delta bench corpus/app corpus/rootfs --tools auto,plain,hdiffz --json",
		Args:    usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return b.run(cmd.Context(), u, args)
		},
	}
	c.Flags().StringSliceVar(&b.tools, "tools", nil, "what to measure: auto, plain, dense, bsdiff, xdelta3, zstd, hdiffz (default: auto, plain and the others that are installed)")
	c.Flags().StringVar(&b.scratch, "scratch", "", "directory for patches and results (default: the system's)")
	return c
}

// benchTool makes a patch and applies it: command lines in which OLD, NEW, PATCH and
// OUT stand for paths.
type benchTool struct {
	name          string
	create, apply []string
	ours          bool
}

// anchors are the other tools, as small as they go.
var anchors = []benchTool{
	{name: "bsdiff", create: []string{"bsdiff", "OLD", "NEW", "PATCH"}, apply: []string{"bspatch", "OLD", "OUT", "PATCH"}},
	{name: "xdelta3", create: []string{"xdelta3", "-e", "-9", "-S", "lzma", "-D", "-B", "536870912", "-s", "OLD", "NEW", "PATCH"},
		apply: []string{"xdelta3", "-d", "-D", "-B", "536870912", "-s", "OLD", "PATCH", "OUT"}},
	{name: "zstd", create: []string{"zstd", "--no-progress", "-19", "--long=31", "--patch-from=OLD", "NEW", "-o", "PATCH"},
		apply: []string{"zstd", "--no-progress", "-d", "--long=31", "--patch-from=OLD", "PATCH", "-o", "OUT"}},
	{name: "hdiffz", create: []string{"hdiffz", "-m-6", "-SD", "-d", "-c-zstd-21-24", "OLD", "NEW", "PATCH"}, apply: []string{"hpatchz", "OLD", "PATCH", "OUT"}},
}

// errBench ends a bench in which patches of updraft failed.
var errBench = errors.New("patches of updraft failed")

// bench is what is measured, and where.
type bench struct {
	tools   []string
	scratch string
	self    string // the program; empty: this one
}

// benchRow is what one tool did with one pair.
type benchRow struct {
	Case   string    `json:"case"` // another one for each pair
	Tool   string    `json:"tool"`
	New    int64     `json:"new_bytes"`
	Patch  int64     `json:"patch_bytes"` // 0: it failed
	Create benchCost `json:"create"`
	Apply  benchCost `json:"apply"`
	Error  string    `json:"error,omitempty"`
}

// benchCost is what a process took.
type benchCost struct {
	CPU float64 `json:"cpu_seconds"`
	RSS int64   `json:"peak_rss_bytes"`
}

func (b *bench) run(ctx context.Context, u *ui, dirs []string) (err error) {
	tools, err := b.choose()
	if err != nil {
		return err
	}
	if b.self == "" {
		if b.self, err = os.Executable(); err != nil {
			return err
		}
	}
	pairs, err := findPairs(dirs...)
	if err != nil {
		return err
	}
	if len(pairs) == 0 {
		return usagef("no pair of old and new below %s", strings.Join(dirs, ", "))
	}
	dir, err := os.MkdirTemp(b.scratch, "updraft-bench-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	rows := []benchRow{}
	names := caseNames(pairs)
	for i, p := range pairs {
		u.note("%s", p)
		r, err := b.pair(ctx, dir, p, names[i], tools)
		if err != nil {
			return err
		}
		rows = append(rows, r...)
	}
	means, of := benchMeans(rows)
	failed := 0
	for i := range rows {
		if rows[i].ours() && rows[i].Patch == 0 {
			failed++
		}
	}
	err = u.result(map[string]any{"rows": rows, "means": means, "mean_pairs": of, "pairs": len(pairs)}, func(w io.Writer) { printBench(w, rows, means, of, len(pairs)) })
	if err == nil && failed > 0 {
		err = fmt.Errorf("%w: %d of them", errBench, failed)
	}
	return err
}

// choose returns the tools that are wanted and there.
func (b *bench) choose() ([]benchTool, error) {
	var out []benchTool
	want := func(name string) bool { return slices.Contains(b.tools, name) }
	known := []string{}
	for _, name := range []string{"auto", "plain", "dense"} {
		known = append(known, name)
		if want(name) || len(b.tools) == 0 && name != "dense" {
			out = append(out, benchTool{name: name, ours: true, create: []string{"updraft", "delta", "create", "--profile", name, "OLD", "NEW", "PATCH"},
				apply: []string{"updraft", "delta", "apply", "OLD", "PATCH", "OUT"}})
		}
	}
	for _, t := range anchors {
		known = append(known, t.name)
		_, err := exec.LookPath(t.create[0])
		if _, aerr := exec.LookPath(t.apply[0]); err == nil {
			err = aerr
		}
		if want(t.name) && err != nil {
			return nil, usagef("%s is not installed: %w", t.name, err)
		}
		if want(t.name) || len(b.tools) == 0 && err == nil {
			out = append(out, t)
		}
	}
	for _, t := range b.tools {
		if !slices.Contains(known, t) {
			return nil, usagef("tool %q: there are %s", t, strings.Join(known, ", "))
		}
	}
	return out, nil
}

// findPairs returns the directories below dirs, or these themselves, that hold old and new.
// It follows links, and goes nowhere twice.
func findPairs(dirs ...string) (pairs []string, err error) {
	seen := map[string]bool{}
	for _, d := range dirs {
		p, err := pairsBelow(filepath.Clean(d), seen)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, p...)
	}
	return pairs, nil
}

// caseNames returns the ends of the paths of pairs that tell them apart, of whole elements, as few as do.
func caseNames(pairs []string) []string {
	names := slices.Clone(pairs)
	for i, p := range pairs {
		for at := strings.LastIndexByte(p, '/'); at >= 0; at = strings.LastIndexByte(p[:at], '/') {
			end := p[at+1:]
			if !slices.ContainsFunc(pairs, func(o string) bool { return o != p && strings.HasSuffix("/"+o, "/"+end) }) {
				names[i] = end
				break
			}
		}
	}
	return names
}

func pairsBelow(dir string, seen map[string]bool) ([]string, error) {
	place, err := filepath.EvalSymlinks(dir)
	if err != nil || seen[place] {
		return nil, err
	}
	seen[place] = true
	if isPair(dir) {
		return []string{dir}, nil
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if st, err := os.Stat(path); err != nil || !st.IsDir() {
			continue // a link that leads nowhere is no pair either
		}
		below, err := pairsBelow(path, seen)
		if err != nil {
			return nil, err
		}
		out = append(out, below...)
	}
	return out, nil
}

func isPair(dir string) bool {
	for _, side := range []string{"old", "new"} {
		if _, err := os.Stat(filepath.Join(dir, side)); err != nil {
			return false
		}
	}
	return true
}

// pair measures all tools on one pair, which is called name. It fails only when ctx is done:
// what else goes wrong is in the rows.
func (b *bench) pair(ctx context.Context, dir, pair, name string, tools []benchTool) ([]benchRow, error) {
	sides, n, isTree, openErr := openSides(pair)
	packed, packErr := sides, openErr
	if isTree && slices.ContainsFunc(tools, func(t benchTool) bool { return !t.ours }) {
		for i, s := range sides {
			packed[i] = filepath.Join(dir, []string{"old.tar", "new.tar"}[i])
			packErr = errors.Join(packErr, packTree(packed[i], s))
		}
	}
	var rows []benchRow
	for _, t := range tools {
		s, err := packed, packErr
		if t.ours {
			s, err = sides, openErr
		}
		r := benchRow{Case: name, Tool: t.name, New: n}
		if err == nil {
			err = b.measure(ctx, &r, t, s, dir)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			r.Patch, r.Error = 0, err.Error()
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// openSides returns where the sides of a pair lie, links followed: not all tools do that. It says
// how many bytes are on the new one, and whether they are trees.
func openSides(pair string) (sides [2]string, n int64, isTree bool, err error) {
	for i, s := range []string{"old", "new"} {
		if sides[i], err = filepath.EvalSymlinks(filepath.Join(pair, s)); err != nil {
			return sides, 0, false, err
		}
	}
	old, fresh, err := openPair(sides[0], sides[1], false)
	if err != nil {
		return sides, 0, false, err
	}
	return sides, fresh.Size() - fresh.listing, fresh.tree, errors.Join(old.Close(), fresh.Close())
}

// measure makes, applies and compares one patch.
func (b *bench) measure(ctx context.Context, r *benchRow, t benchTool, sides [2]string, dir string) (err error) {
	names := map[string]string{"OLD": sides[0], "NEW": sides[1], "PATCH": filepath.Join(dir, "patch"), "OUT": filepath.Join(dir, "out")}
	defer func() { err = errors.Join(err, os.RemoveAll(names["PATCH"]), os.RemoveAll(names["OUT"])) }()
	if r.Create, err = b.process(ctx, t.create, names); err != nil {
		return err
	}
	st, err := os.Stat(names["PATCH"])
	if err != nil {
		return err
	}
	r.Patch = st.Size()
	if r.Apply, err = b.process(ctx, t.apply, names); err != nil {
		return err
	}
	want, err := streamDigest(names["NEW"])
	if err != nil {
		return err
	}
	if got, err := streamDigest(names["OUT"]); err != nil || got != want {
		return errors.Join(errors.New("the result is not the new side"), err)
	}
	return nil
}

// process runs a command and returns what it took.
func (b *bench) process(ctx context.Context, line []string, names map[string]string) (benchCost, error) {
	args := slices.Clone(line)
	for i, a := range args {
		for name, path := range names {
			if a == name || strings.HasSuffix(a, "="+name) {
				args[i] = strings.TrimSuffix(a, name) + path
			}
		}
	}
	if args[0] == "updraft" {
		args[0] = b.self
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return benchCost{}, fmt.Errorf("%s: %w: %s", line[0], err, lastWords(stderr.String()))
	}
	c := benchCost{CPU: (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()}
	if ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.RSS = int64(ru.Maxrss) << 10 //nolint:unconvert // an int32 on 32-bit machines
	}
	return c, nil
}

// lastWords returns the end of what a tool has said, in one line: the reason comes last.
func lastWords(s string) string {
	const most = 300
	words := []rune(strings.Join(strings.Fields(s), " "))
	return string(words[max(0, len(words)-most):])
}

// streamDigest returns the digest of a file, or of a tree with its metadata.
func streamDigest(path string) (sum [32]byte, err error) {
	s, err := openStream(path, false)
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	_, err = io.Copy(h, io.NewSectionReader(s, 0, s.Size()))
	return [32]byte(h.Sum(nil)), errors.Join(err, s.Close())
}

// packTree writes the tree at dir as a tar whose bytes depend on the tree alone.
func packTree(path, dir string) error {
	_, err := writeFile(path, filePerm, func(w io.Writer) error {
		t := tar.NewWriter(w)
		if err := t.AddFS(os.DirFS(dir)); err != nil {
			return err
		}
		return t.Close()
	}, nil)
	return err
}

// ours reports whether a profile of updraft made r.
func (r *benchRow) ours() bool { return r.Tool == "auto" || r.Tool == "plain" || r.Tool == "dense" }

// benchRatios returns, for each row of ours, its patch over the smallest of the other
// tools', and 0 where no other tool ran.
func benchRatios(rows []benchRow) []float64 {
	const floor = 4096
	best := map[string]int64{}
	for _, r := range rows {
		if n := best[r.Case]; !r.ours() && r.Patch > 0 && (n == 0 || r.Patch < n) {
			best[r.Case] = r.Patch
		}
	}
	out := make([]float64, len(rows))
	for i, r := range rows {
		if n := best[r.Case]; r.ours() && r.Patch > 0 && n > 0 {
			out[i] = float64(max(r.Patch, floor)) / float64(max(n, floor))
		}
	}
	return out
}

// benchMeans returns, for each of our profiles, the geometric mean of its ratios and of how
// many pairs it is; none where no other tool ran.
func benchMeans(rows []benchRow) (map[string]float64, map[string]int) {
	sums, counts := map[string]float64{}, map[string]int{}
	for i, x := range benchRatios(rows) {
		if x > 0 {
			sums[rows[i].Tool] += math.Log(x)
			counts[rows[i].Tool]++
		}
	}
	means := map[string]float64{}
	for tool, s := range sums {
		means[tool] = math.Exp(s / float64(counts[tool]))
	}
	return means, counts
}

func printBench(w io.Writer, rows []benchRow, means map[string]float64, of map[string]int, pairs int) {
	out := [][]string{{"CASE", "NEW", "TOOL", "PATCH", "OF NEW", "OF BEST", "CREATE", "", "", "APPLY", "", ""}}
	ratios, failed := benchRatios(rows), map[string]int{}
	for i, r := range rows {
		row := []string{r.Case, size(r.New), r.Tool}
		if r.Patch == 0 {
			failed[r.Tool]++
			out = append(out, append(row, "failed: "+r.Error))
			continue
		}
		ratio := ""
		if ratios[i] > 0 {
			ratio = fmt.Sprintf("%.3f", ratios[i])
		}
		row = append(row, fmt.Sprint(r.Patch), percent(r.Patch, r.New), ratio)
		for _, c := range []benchCost{r.Create, r.Apply} {
			row = append(row, fmt.Sprintf("%.2f s", c.CPU), fmt.Sprintf("%.1f MB/s", float64(r.New)/1e6/max(c.CPU, 0.005)), size(c.RSS))
		}
		out = append(out, row)
	}
	table(w, out)
	for _, tool := range []string{"auto", "plain", "dense"} {
		if m, ok := means[tool]; ok {
			fmt.Fprintf(w, "%s over the best of the other tools: %.3f (%d of %d pairs)\n", tool, m, of[tool], pairs)
		}
	}
	for _, t := range anchors {
		if n := failed[t.name]; n > 0 {
			fmt.Fprintf(w, "%s failed with %d of %d pairs, which is no failure of updraft's.\n", t.name, n, pairs)
		}
	}
}
