package main

import (
	"archive/tar"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"updraft/delta/patch"
	"updraft/delta/tree"
)

// fileCost is what a file, or what is of none, takes of a patch.
type fileCost struct {
	Name     string `json:"name"`
	NameHex  string `json:"name_hex,omitempty"` // where JSON cannot hold the name: it is not UTF-8
	Size     int64  `json:"size"`               // bytes of the output
	Bytes    int64  `json:"bytes"`              // of the patch
	Copies   int64  `json:"copies"`
	Residual int64  `json:"residual"`
	Literals int64  `json:"literals"`
	Parses   int64  `json:"parses"`

	at int64 // of the output
}

// fileCosts applies p to what is at old, and returns what each file takes, the most first.
// What is for all of them is among them, as files of no size.
func fileCosts(ctx context.Context, p *patchFile, i patch.Info, oldPath string) (_ []fileCost, err error) {
	old, err := openStream(oldPath, p.bare)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, old.Close()) }()
	if p.tree != old.tree {
		return nil, usagef("--files %s: the patch is one of %s", oldPath, map[bool]string{true: "directory trees", false: "files"}[p.tree])
	}
	old.limit(i.BaseSize)
	var costs []patch.Cost
	r, w := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := patch.Decode(ctx, p, old, w, patch.DecodeOptions{Account: func(c patch.Cost) { costs = append(costs, c) }})
		_ = w.CloseWithError(err) // never fails
	})
	files, err := outputFiles(r, p, i.NewSize)
	_ = r.CloseWithError(err) // never fails
	if wg.Wait(); err != nil {
		return nil, err
	}
	shared := int64(0)
	for _, c := range costs {
		if c.Part == patch.Shared {
			shared += c.Bytes
		} else {
			spread(files, c)
		}
	}
	for i := range files {
		if f := &files[i]; !utf8.ValidString(f.Name) {
			f.NameHex = hex.EncodeToString([]byte(f.Name))
		}
	}
	header := p.head + i.HeaderBytes - i.RecipeBytes - i.IndexBytes
	files = append(files, fileCost{Name: "(header)", Bytes: header}, fileCost{Name: "(recipe)", Bytes: i.RecipeBytes}, fileCost{Name: "(index)", Bytes: i.IndexBytes},
		fileCost{Name: "(shared)", Bytes: shared})
	sort.SliceStable(files, func(i, j int) bool { return files[i].Bytes > files[j].Bytes })
	return files, nil
}

// outputFiles reads the output of p to its end and returns its files by their places.
func outputFiles(r io.Reader, p *patchFile, size int64) ([]fileCost, error) {
	in := &countedReader{r: r}
	var files []fileCost
	switch {
	case p.tree:
		head := make([]byte, p.listing)
		if _, err := io.ReadFull(in, head); err != nil {
			return nil, err
		}
		l, err := tree.Parse(head)
		if err != nil {
			return nil, err
		}
		files = append(files, fileCost{Name: "(listing)", Size: p.listing})
		at := p.listing
		for i := range l.Entries {
			if e := &l.Entries[i]; e.Size > 0 {
				files = append(files, fileCost{Name: e.Path, Size: e.Size, at: at})
				at += e.Size
			}
		}
	default:
		files = tarFiles(in, size)
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return nil, err
	}
	if end := in.n; end != size {
		return nil, fmt.Errorf("%w: output of %d bytes", patch.ErrCorrupt, end)
	}
	if k := len(files) - 1; k < 0 {
		files = append(files, fileCost{Name: "(all)", Size: size})
	} else if end := files[k].at + files[k].Size; end < size {
		files = append(files, fileCost{Name: "(end)", Size: size - end, at: end})
	}
	return files, nil
}

// maxHoles is how many times as long as the archive its files may be together: holes of sparse
// ones take no room in it, and may be of any length.
const maxHoles = 64

// tarFiles returns the files of an archive of size bytes with what is in front of each, as far as r is one.
func tarFiles(r *countedReader, size int64) (files []fileCost) {
	t, left := tar.NewReader(r), maxHoles*min(size, 1<<50)
	for at := r.n; ; at = r.n {
		h, err := t.Next()
		if err == nil {
			var n int64
			n, err = io.Copy(io.Discard, io.LimitReader(t, left+1))
			if left -= n; left < 0 {
				err = tar.ErrHeader
			}
		}
		if err != nil {
			return files // the end, or none: it is said of what is left
		}
		files = append(files, fileCost{Name: h.Name, Size: r.n - at, at: at})
	}
}

// countedReader counts what is read.
type countedReader struct {
	r io.Reader
	n int64
}

func (c *countedReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

// spread adds c to the files it is for, of which there is one at least, by their parts of it.
func spread(files []fileCost, c patch.Cost) {
	k := max(0, sort.Search(len(files), func(k int) bool { return files[k].at > c.Off })-1)
	for given := int64(0); given < c.Bytes; k++ {
		f := &files[k]
		n := c.Bytes - given
		if end := f.at + f.Size; k < len(files)-1 && end < c.Off+c.Size {
			n = int64(float64(c.Bytes)*float64(end-c.Off)/float64(c.Size)) - given
		}
		given += n
		f.Bytes += n
		switch c.Part {
		case patch.Copies:
			f.Copies += n
		case patch.Residual:
			f.Residual += n
		case patch.Literals:
			f.Literals += n
		case patch.Parses:
			f.Parses += n
		}
	}
}

func printFileCosts(w io.Writer, files []fileCost, more int) {
	if len(files) == 0 {
		return
	}
	rows := [][]string{{"FILE", "SIZE", "BYTES", "COPIES", "RESIDUAL", "LITERALS", "PARSES"}}
	for _, f := range files {
		name := f.Name // which is whose the patch is
		if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
			name = strconv.Quote(name)
		}
		row := []string{name}
		for _, n := range []int64{f.Size, f.Bytes, f.Copies, f.Residual, f.Literals, f.Parses} {
			row = append(row, fmt.Sprint(n))
		}
		rows = append(rows, row)
	}
	table(w, rows)
	if more > 0 {
		fmt.Fprintf(w, "%d more take less each; --top 0 shows all.\n", more)
	}
}
