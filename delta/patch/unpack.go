package patch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"updraft/delta/patch/internal/deflate"
	"updraft/delta/patch/internal/layer"
)

// unpacking sees a pair of streams through compression, one layer after the other.
type unpacking struct {
	o        job
	old, new Source // or their views so far
	recipe   recipe
	most     int64 // bytes that a view may have
	room     int   // bytes that the recipe may yet take
	base     int   // members it may yet have
	outputs  int
	hints    []deflate.Params // what made streams so far
	spools   []*layer.Spools
	views    []*layer.Spooled // of new, one for each layer
}

const (
	// recipeCost is what a member takes in a recipe, about, apart from corrections.
	recipeCost = 16
	// viewRatio is how many times as large as its stream a view may be, beyond
	// viewFree bytes: both are read into memory.
	viewRatio = 4
	viewFree  = 256 << 20
	// giveUp is how many streams in a row of unknown compressors are enough.
	giveUp = 48
	// batch is how many streams are analysed with the same hints.
	batch = 16
)

// unpack looks, in so many layers at most, for compressed streams in old and new that differ and can be made
// again. Close must be called.
func unpack(ctx context.Context, old, new Source, layers int, o job) (*unpacking, error) {
	u := &unpacking{o: o, old: old, new: new, most: min(maxCreate, viewFree+viewRatio*max(old.Size(), new.Size())), room: maxRecipe - 1<<10, base: maxMembers, outputs: maxOutputs}
	var oldKnown, newKnown []layer.Member
	for range layers {
		var err error
		oldKnown, newKnown, err = u.layer(ctx, oldKnown, newKnown)
		if err != nil {
			u.Close()
			return nil, err
		}
		if newKnown == nil {
			break
		}
	}
	return u, nil
}

// Close gives up the views.
func (u *unpacking) Close() {
	for _, s := range u.spools {
		s.Close()
	}
}

// found is what one stream holds.
type found struct {
	src    Source
	main   int64 // bytes of src that may hold members
	spools *layer.Spools
	ms     []layer.Found
	open   []bool // of ms: to be unpacked
}

// head returns the first bytes of a member, plain or as it is packed.
func (f *found) head(i int, plain bool) []byte {
	m := &f.ms[i]
	b := make([]byte, min(64, m.Plain, m.Packed))
	if plain {
		if n, _ := f.spools.Plain.ReadAt(b, m.Spool); n < len(b) {
			return nil
		}
	} else if n, _ := f.src.ReadAt(b, m.Off); n < len(b) {
		return nil
	}
	return b
}

// layer unpacks one layer. It returns the members that stay as they are, by their
// places in the views; nil if there is nothing to unpack.
func (u *unpacking) layer(ctx context.Context, oldKnown, newKnown []layer.Member) (_, _ []layer.Member, err error) {
	old, new := &found{src: u.old, main: u.old.Size()}, &found{src: u.new, main: u.new.Size()}
	if v, ok := u.old.(*layer.Spooled); ok {
		old.main, new.main = v.Main(), u.views[len(u.views)-1].Main()
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(u.o.Jobs)
	u.o.meter.stage(shareFind, old.main+new.main)
	for i, f := range []*found{old, new} {
		f.spools = layer.NewSpools(u.o.Scratch)
		u.spools = append(u.spools, f.spools)
		g.Go(func() (err error) {
			f.ms, err = layer.Find(gctx, io.NewSectionReader(&metered{Source: f.src, meter: u.o.meter}, 0, f.main), [][]layer.Member{oldKnown, newKnown}[i], f.spools, maxOutputs, u.most-f.src.Size())
			f.open = make([]bool, len(f.ms))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	choose(old, new)
	if err := strange(old, new); err != nil {
		return nil, nil, err
	}
	l, err := u.analyze(ctx, new)
	if err != nil || l.outputs == 0 {
		return nil, nil, err
	}
	u.keep(old, new)
	l.base = members(old.ms, old.open)
	u.base -= len(l.base)
	u.recipe.layers = append(u.recipe.layers, l)
	oldView, oldKnown, err := view(old)
	if err != nil {
		return nil, nil, err
	}
	newView, newKnown, err := view(new)
	if err != nil {
		return nil, nil, err
	}
	u.old, u.new, u.views = oldView, newView, append(u.views, newView)
	return oldKnown, newKnown, nil
}

// view returns the view of f, and where in it members are that stay packed.
func view(f *found) (*layer.Spooled, []layer.Member, error) {
	var open []layer.Found
	for i, m := range f.ms {
		if f.open[i] {
			open = append(open, m)
		}
	}
	v, err := layer.NewSpooled(f.src, open, f.spools, MaxSize)
	if err != nil {
		return nil, nil, err
	}
	known := []layer.Member{}
	for i, m := range f.ms {
		if !f.open[i] {
			m.Off = v.At(m.Off)
			known = append(known, m.Member)
		}
	}
	return v, known, nil
}

// members returns those of ms that are open.
func members(ms []layer.Found, open []bool) []layer.Member {
	var out []layer.Member
	for i, m := range ms {
		if open[i] {
			out = append(out, m.Member)
		}
	}
	return out
}

// choose opens the members that are not in both streams. Programs that lie over
// several members are opened as a whole, or not at all: references in them lead from
// one member to others.
func choose(old, new *found) {
	type key = [16]byte
	in := map[key]int{}
	for i, f := range []*found{old, new} {
		for _, m := range f.ms {
			in[m.Sum] |= 1 << i
		}
	}
	open := func(k key) bool { return in[k] != 3 }
	groups := [][][2]int{programs(old), programs(new)}
	for more := true; more; {
		more = false
		for i, f := range []*found{old, new} {
			for _, g := range groups[i] {
				any, all := false, true
				for _, m := range f.ms[g[0]:g[1]] {
					any, all = any || open(m.Sum), all && open(m.Sum)
				}
				if !any || all {
					continue
				}
				more = true
				for _, m := range f.ms[g[0]:g[1]] {
					in[m.Sum] = 0
				}
			}
		}
	}
	for _, f := range []*found{old, new} {
		for i, m := range f.ms {
			f.open[i] = open(m.Sum)
		}
	}
}

// programs returns runs of members that hold a program each.
func programs(f *found) [][2]int {
	var out [][2]int
	for i := 0; i < len(f.ms); i++ {
		n := programSize(f.head(i, true))
		if n <= f.ms[i].Plain {
			continue
		}
		k := i + 1
		for got := f.ms[i].Plain; k < len(f.ms); k++ {
			got += f.ms[k].Off - f.ms[k-1].Off - f.ms[k-1].Packed + f.ms[k].Plain
			if got > n {
				break
			}
		}
		if k > i+1 {
			out = append(out, [2]int{i, k})
			i = k - 1
		}
	}
	return out
}

// programSize returns how long the ELF file is that begins with b: its section headers
// come last. 0: it is none.
func programSize(b []byte) int64 {
	le := binary.LittleEndian
	if len(b) < 64 || !bytes.HasPrefix(b, []byte("\x7fELF")) || b[5] != 1 {
		return 0
	}
	if b[4] == 2 {
		return int64(le.Uint64(b[40:])&uint64(MaxSize-1)) + int64(le.Uint16(b[58:]))*int64(le.Uint16(b[60:]))
	}
	return int64(le.Uint32(b[32:])) + int64(le.Uint16(b[46:]))*int64(le.Uint16(b[48:]))
}

// analyze finds out how the open members of new were made, and closes those for which
// that is not known or takes too much.
func (u *unpacking) analyze(ctx context.Context, new *found) (recipeLayer, error) {
	var l recipeLayer
	var todo []int
	packed := int64(0)
	for i := range new.ms {
		if new.open[i] {
			todo = append(todo, i)
			packed += new.ms[i].Packed
		}
	}
	if packed > 0 {
		u.o.meter.stage(shareAnalyze, packed)
	}
	results := make([]*way, len(new.ms))
	foreign := 0
	for n := 1; len(todo) > 0; n = batch {
		n = min(n, len(todo))
		if foreign >= giveUp {
			break
		}
		if err := u.batch(ctx, new, todo[:n], results); err != nil {
			return l, err
		}
		for _, i := range todo[:n] {
			if foreign++; results[i] != nil {
				foreign = 0
				if c := results[i].class; !c.Wrap.Parsed() {
					u.hint(c.Params)
				}
			}
		}
		todo = todo[n:]
	}
	end := int64(0)
	for i := range new.ms {
		if !new.open[i] {
			continue
		}
		m := &new.ms[i]
		new.open[i] = false
		r := results[i]
		if r == nil || u.outputs == 0 || u.room < recipeCost+len(r.corrections) || int64(len(r.corrections)) > m.Packed/4 {
			continue
		}
		if !l.add(layer.Output{Gap: m.Off - end, Plain: m.Plain, Parse: m.Parse, Class: &r.class, Corrections: r.corrections}) {
			continue
		}
		u.outputs--
		u.room -= recipeCost + len(r.corrections)
		end = m.Off + m.Packed
		new.open[i] = true
	}
	return l, nil
}

// hint notes what made a stream, the last first.
func (u *unpacking) hint(p deflate.Params) {
	for i, h := range u.hints {
		if h == p {
			copy(u.hints[1:i+1], u.hints[:i])
			u.hints[0] = p
			return
		}
	}
	if len(u.hints) < 4 {
		u.hints = append(u.hints, p)
	}
	copy(u.hints[1:], u.hints)
	u.hints[0] = p
}

// way is how a member is made.
type way struct {
	class       layer.Class
	corrections []byte
}

// batch analyses members; results of those that cannot be made stay nil.
func (u *unpacking) batch(ctx context.Context, f *found, todo []int, results []*way) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(u.o.Jobs)
	for _, i := range todo {
		g.Go(func() error {
			m := &f.ms[i]
			defer u.o.meter.add(m.Packed)
			if m.Wrap.Parsed() {
				same, err := f.joins(i)
				if same {
					results[i] = &way{class: layer.Class{Wrap: m.Wrap}}
				}
				return err
			}
			off, end := m.Deflate()
			r, err := deflate.Analyze(ctx, f.src, off, end, deflate.Options{Hints: u.hints})
			switch {
			case errors.Is(err, deflate.ErrForeign) || errors.Is(err, deflate.ErrFormat):
				return nil
			case err != nil:
				return fmt.Errorf("patch: analyse: %w", err)
			case r.Packed == end-off && r.Plain == m.Plain:
				results[i] = &way{layer.Class{Wrap: m.Wrap, Head: m.Head, Params: r.Params}, r.Corrections}
			}
			return nil
		})
	}
	return g.Wait()
}

// keep closes members of old that begin as one of new does that stays packed: that one
// will be made from it.
func (u *unpacking) keep(old, new *found) {
	packed := map[string]bool{}
	for i := range new.ms {
		if !new.open[i] {
			packed[string(new.head(i, false))] = true
		}
	}
	left := u.base
	for i := range old.ms {
		if !old.open[i] {
			continue
		}
		if old.open[i] = left > 0 && u.room >= recipeCost && !packed[string(old.head(i, false))]; old.open[i] {
			left--
			u.room -= recipeCost
		}
	}
}

const (
	shortCover  = 48
	farForward  = 512 << 10
	farBackward = 128 << 10
)

// near returns cs without the short ones that come from far away: they take about as
// much as they save, and a decoder would have to inflate what lies between.
func near(cs []cover) []cover {
	out := cs[:0]
	at := 0
	for _, c := range cs {
		if d := c.o - at; c.l < shortCover && (d > farForward || d < -farBackward) {
			continue
		}
		out = append(out, c)
		at = c.o + c.l
	}
	return out
}
