// Package tree makes a directory tree one byte stream, and a stream a tree.
//
// The stream is the listing followed by the contents of the regular files, in the
// order of the listing; there is nothing between them. The listing names every
// entry below the root in byte-wise order of the whole path, with kind,
// permissions (with setuid, setgid, sticky), owner, modification time in
// nanoseconds, size, and the target of links:
//
//	magic    8 bytes "UDTREE1\n"
//	count    uvarint, entries
//	entry    head     uvarint: mode<<2 | kind (0 directory, 1 file, 2 symlink, 3 hard link)
//	         shared   uvarint: bytes the path has in common with the path before
//	         rest     uvarint length, then the other bytes of the path
//	         owner    uvarint uid, uvarint gid                   (not for hard links)
//	         mtime    varint (zigzag): ns since the entry before (not for hard links)
//	         size     uvarint                                    (files only)
//	         target   uvarint length, then bytes                 (links only)
//
// The same tree gives the same bytes, and only those bytes parse: a listing that
// parses is written as it was read. Extended attributes, ACLs and the root's own
// metadata are not kept; devices, sockets and pipes are refused.
//
// A listing comes from outside and is hostile until it has been parsed: paths are
// relative and clean, each parent is a directory of the listing, nothing occurs
// twice, a hard link names an earlier file. So a Writer never walks through a
// link: it works inside an os.Root, makes links last, and replaces what it finds
// in the way of a directory or file.
package tree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

const (
	magic = "UDTREE1\n"
	// MaxEntries, MaxPath, MaxName and MaxListing bound a listing: entries, bytes
	// of a path, bytes of one of its elements, bytes in all.
	MaxEntries = 1 << 20
	MaxPath    = 4096
	MaxName    = 255
	MaxListing = 64 << 20
	// MaxPaths bounds the bytes of all paths together: in a listing each takes those only
	// in which it differs from the one before.
	MaxPaths = 128 << 20
	// MaxContent bounds the sum of the sizes of all files.
	MaxContent = int64(1) << 40
)

var (
	// ErrListing reports bytes that are not a listing, or entries that may not be
	// in one.
	ErrListing = errors.New("tree: malformed listing")
	// ErrKind reports a file that cannot be published: a device, socket or pipe.
	ErrKind = errors.New("tree: neither file, directory nor link")
	// ErrChanged reports a file that is not what the listing says.
	ErrChanged = errors.New("tree: not as it was before")
)

// Kind says what an entry is.
type Kind uint8

// The kinds of entries; their values are those of the format.
const (
	Dir Kind = iota
	File
	Symlink
	Hardlink
)

// Entry is one line of a listing.
type Entry struct {
	Path   string // below the root, slash-separated; any bytes but NUL
	Kind   Kind
	Mode   uint32 // permissions, setuid, setgid, sticky (07777); 0 for links
	UID    uint32 // 0 for hard links
	GID    uint32 // 0 for hard links
	MTime  int64  // nanoseconds since 1970; 0 for hard links
	Size   int64  // files: bytes
	Target string // symlinks: where to, as it is; hard links: path of the file
}

// Granted returns the mode that the entry gets where it belongs to this user and group: setuid only if that is
// the listed user, setgid only if that is the listed group. Else a program would run with the rights of somebody
// whom its publisher did not mean.
func (e *Entry) Granted(uid, gid uint32) uint32 {
	mode := e.Mode
	if uid != e.UID {
		mode &^= 0o4000
	}
	if gid != e.GID {
		mode &^= 0o2000
	}
	return mode
}

// Listing is the table of a tree, sorted by path.
type Listing struct {
	Entries []Entry
}

// ContentSize returns the sum of the sizes of all files, in bytes.
func (l *Listing) ContentSize() int64 {
	var n int64
	for i := range l.Entries {
		n += l.Entries[i].Size
	}
	return n
}

// Append appends the listing's bytes to b.
func (l *Listing) Append(b []byte) []byte {
	b = append(b, magic...)
	b = binary.AppendUvarint(b, uint64(len(l.Entries)))
	var prev Entry
	for _, e := range l.Entries {
		b = e.append(b, &prev)
	}
	return b
}

// length returns how many bytes Append appends.
func (l *Listing) length() int64 {
	n := int64(len(binary.AppendUvarint([]byte(magic), uint64(len(l.Entries)))))
	var prev Entry
	var b []byte
	for _, e := range l.Entries {
		b = e.append(b[:0], &prev)
		n += int64(len(b))
	}
	return n
}

// append writes e, and makes it the entry before for the next one.
func (e *Entry) append(b []byte, prev *Entry) []byte {
	b = binary.AppendUvarint(b, uint64(e.Mode)<<2|uint64(e.Kind))
	n := 0
	for n < len(prev.Path) && n < len(e.Path) && prev.Path[n] == e.Path[n] {
		n++
	}
	b = binary.AppendUvarint(b, uint64(n))
	b = appendString(b, e.Path[n:])
	prev.Path = e.Path
	if e.Kind != Hardlink {
		b = binary.AppendUvarint(b, uint64(e.UID))
		b = binary.AppendUvarint(b, uint64(e.GID))
		b = binary.AppendVarint(b, e.MTime-prev.MTime)
		prev.MTime = e.MTime
	}
	switch e.Kind {
	case File:
		b = binary.AppendUvarint(b, uint64(e.Size))
	case Symlink, Hardlink:
		b = appendString(b, e.Target)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// Parse decodes a listing and checks all that the package comment promises.
// Errors wrap ErrListing.
func Parse(b []byte) (*Listing, error) {
	if len(b) > MaxListing {
		return nil, fmt.Errorf("%w: %d bytes", ErrListing, len(b))
	}
	rest, ok := bytes.CutPrefix(b, []byte(magic))
	if !ok {
		return nil, fmt.Errorf("%w: no magic", ErrListing)
	}
	p := parser{b: rest}
	count := p.uint(MaxEntries)
	if p.bad || !bytes.Equal(binary.AppendUvarint(nil, count), rest[:len(rest)-len(p.b)]) {
		return nil, fmt.Errorf("%w: count", ErrListing)
	}
	// An entry takes at least six bytes: a false count cannot ask for memory.
	if count > uint64(len(p.b)/6)+1 {
		return nil, fmt.Errorf("%w: %d entries in %d bytes", ErrListing, count, len(p.b))
	}
	l := &Listing{Entries: make([]Entry, 0, count)}
	if err := l.parse(&p, int(count)); err != nil {
		return nil, err
	}
	if len(p.b) > 0 {
		return nil, fmt.Errorf("%w: %d bytes too many", ErrListing, len(p.b))
	}
	return l, nil
}

func (l *Listing) parse(p *parser, count int) error {
	var prev, written Entry
	var again []byte
	v := validator{kinds: make(map[string]Kind, count)}
	for i := range count {
		start := p.b
		e := p.entry(&prev)
		if p.bad {
			return fmt.Errorf("%w: entry %d", ErrListing, i)
		}
		again = e.append(again[:0], &written)
		if !bytes.Equal(again, start[:len(start)-len(p.b)]) {
			return fmt.Errorf("%w: entry %d is not in its shortest form", ErrListing, i)
		}
		if err := v.add(&e); err != nil {
			return err
		}
		l.Entries = append(l.Entries, e)
	}
	return nil
}

// Validate checks a listing made by hand as Parse checks one that came as bytes.
func (l *Listing) Validate() error {
	if len(l.Entries) > MaxEntries {
		return fmt.Errorf("%w: %d entries", ErrListing, len(l.Entries))
	}
	v := validator{kinds: make(map[string]Kind, len(l.Entries))}
	for i := range l.Entries {
		if err := v.add(&l.Entries[i]); err != nil {
			return err
		}
	}
	return nil
}

// parser takes values off b; a value out of bounds makes it bad, and then all
// further values are zero.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) uint(limit uint64) uint64 {
	v, n := binary.Uvarint(p.b)
	if p.bad || n <= 0 || v > limit {
		p.bad = true
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *parser) int() int64 {
	v, n := binary.Varint(p.b)
	if p.bad || n <= 0 {
		p.bad = true
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *parser) string(limit int) string {
	n := int(p.uint(uint64(limit)))
	if n > len(p.b) {
		p.bad = true
	}
	if p.bad {
		return ""
	}
	s := string(p.b[:n])
	p.b = p.b[n:]
	return s
}

func (p *parser) entry(prev *Entry) Entry {
	head := p.uint(0o7777<<2 | 3)
	e := Entry{Kind: Kind(head & 3), Mode: uint32(head >> 2)}
	shared := int(p.uint(uint64(len(prev.Path))))
	e.Path = prev.Path[:shared] + p.string(MaxPath)
	if e.Kind != Hardlink {
		e.UID = uint32(p.uint(1<<32 - 1))
		e.GID = uint32(p.uint(1<<32 - 1))
		e.MTime = prev.MTime + p.int()
		prev.MTime = e.MTime
	}
	switch e.Kind {
	case File:
		e.Size = int64(p.uint(uint64(MaxContent)))
	case Symlink, Hardlink:
		e.Target = p.string(MaxPath)
	}
	prev.Path = e.Path
	return e
}

// validator checks entries in order.
type validator struct {
	last  string
	kinds map[string]Kind // of directories and files seen
	total int64
	paths int // bytes of those seen
}

func (v *validator) add(e *Entry) error {
	bad := func(why string) error { return fmt.Errorf("%w: %q %s", ErrListing, e.Path, why) }
	if !validPath(e.Path) {
		return bad("is not a clean relative path")
	}
	if e.Path <= v.last {
		return bad(fmt.Sprintf("does not follow %q", v.last))
	}
	v.last = e.Path
	if i := strings.LastIndexByte(e.Path, '/'); i >= 0 {
		if kind, ok := v.kinds[e.Path[:i]]; !ok || kind != Dir {
			return bad("is not in a directory of the listing")
		}
	}
	v.total += e.Size
	v.paths += len(e.Path)
	switch {
	case v.paths > MaxPaths:
		return bad("makes the paths too long together")
	case e.Kind > Hardlink, e.Mode > 0o7777, e.Size < 0, e.Size > 0 && e.Kind != File:
		return bad("has an impossible kind, mode or size")
	case v.total < 0 || v.total > MaxContent:
		return bad("makes the tree too large")
	case e.Kind == Dir || e.Kind == File:
		if e.Target != "" {
			return bad("has a target")
		}
		v.kinds[e.Path] = e.Kind
		return nil
	case e.Mode != 0, e.Target == "", len(e.Target) > MaxPath-1, strings.IndexByte(e.Target, 0) >= 0:
		return bad("has an impossible target or mode")
	}
	if e.Kind == Hardlink {
		if kind, ok := v.kinds[e.Target]; !ok || kind != File || e.UID|e.GID != 0 || e.MTime != 0 {
			return bad("is not a link to an earlier file")
		}
	}
	return nil
}

// validPath accepts relative paths without empty, "." and ".." elements.
func validPath(p string) bool {
	if p == "" || len(p) > MaxPath || strings.IndexByte(p, 0) >= 0 {
		return false
	}
	for name := range strings.SplitSeq(p, "/") {
		if name == "" || name == "." || name == ".." || len(name) > MaxName {
			return false
		}
	}
	return true
}
