package patch

import (
	"context"
	"encoding/binary"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"

	"updraft/delta/patch/internal/deflate"
	"updraft/delta/patch/internal/layer"
)

const (
	maxRecipe  = 512 << 10 // bytes, unpacked
	maxLayers  = 2
	maxMembers = 1 << 14 // of the base, in all layers
	maxOutputs = 1 << 15 // of the output, in all layers
	maxClasses = 255
	pointRoom  = 2 << 20 // bytes for points where long members can be begun
	// maxSeen is the largest output of a plain or dense segment in a patch with a
	// recipe: the rest of the memory is for members.
	maxSeen = 1 << 20
)

// recipe tells which compressed streams the base and the output hold. All other
// places of a patch are in their views, where those are unpacked.
type recipe struct {
	layers []recipeLayer // the first of the streams, the next of the first's views
	size   int64         // bytes of the recipe, unpacked
}

// recipeLayer is one view.
type recipeLayer struct {
	base    []layer.Member
	classes []layer.Class
	outputs int
	plain   int64 // bytes of outputs, unpacked
	// One entry for each output, read when it is its turn.
	gaps, sizes, picks, parses, lengths []byte
	corrections                         []byte
	parse                               int64 // bytes of the parses
}

// next reads the next output.
func (l *recipeLayer) next() (o layer.Output, ok bool) {
	if l.outputs == 0 {
		return o, false
	}
	l.outputs--
	number := func(b *[]byte) int64 {
		v, n := binary.Uvarint(*b) // parse has seen that it is one
		*b = (*b)[n:]
		return int64(v)
	}
	o.Gap, o.Plain = number(&l.gaps), number(&l.sizes)
	o.Class = &l.classes[number(&l.picks)]
	if o.Class.Wrap.Parsed() {
		o.Parse = number(&l.parses)
	}
	n := number(&l.lengths)
	o.Corrections, l.corrections = l.corrections[:n], l.corrections[n:]
	return o, true
}

// parseRecipe reads a recipe; FORMAT.md has its fields.
func parseRecipe(b []byte) (*recipe, error) {
	d := &fields{b: b}
	r := &recipe{size: int64(len(b))}
	n := d.size(maxLayers)
	members, outputs := int64(maxMembers), int64(maxOutputs)
	for range n {
		var l recipeLayer
		l.parseBase(d, d.size(members))
		members -= int64(len(l.base))
		l.parseClasses(d, d.size(maxClasses))
		l.outputs = int(d.size(outputs))
		outputs -= int64(l.outputs)
		l.parseOutputs(d)
		if d.err != nil {
			return nil, d.err
		}
		r.layers = append(r.layers, l)
	}
	if d.err == nil && (n == 0 || len(d.b) > 0) {
		d.fail("recipe of %d layers and %d bytes more", n, len(d.b))
	}
	return r, d.err
}

func (l *recipeLayer) parseBase(d *fields, n int64) {
	l.base = make([]layer.Member, n)
	column := func(set func(m *layer.Member, v int64), limit int64) {
		for i := range l.base {
			set(&l.base[i], d.size(limit))
		}
	}
	column(func(m *layer.Member, v int64) { m.Off = v }, MaxSize)
	column(func(m *layer.Member, v int64) { m.Packed = v }, MaxSize)
	column(func(m *layer.Member, v int64) { m.Plain = v }, MaxSize)
	for i := range l.base {
		l.base[i].Wrap = d.wrap()
	}
	for i := range l.base {
		if m := &l.base[i]; m.Wrap.Parsed() {
			m.Parse = d.size(MaxSize)
		}
	}
	at := int64(0)
	for i := range l.base {
		m := &l.base[i]
		if m.Off > MaxSize-at || m.Packed > MaxSize-at-m.Off {
			d.fail("member %d of the base", i)
			return
		}
		m.Off += at
		at = m.Off + m.Packed
	}
}

func (l *recipeLayer) parseClasses(d *fields, n int64) {
	for i := range n {
		c := layer.Class{Wrap: d.wrap()}
		if c.Wrap == layer.Zlib {
			d.bytes(c.Head[:])
		}
		if c.Wrap.Parsed() {
			l.classes = append(l.classes, c)
			continue
		}
		p, err := deflate.ParseParams(d.take(deflate.ParamsLen))
		if err != nil {
			d.fail("class %d: %s", i, err.Error())
			return
		}
		c.Params = p
		l.classes = append(l.classes, c)
	}
}

// wrap reads a wrap.
func (d *fields) wrap() layer.Wrap {
	w := layer.Wrap(d.byte())
	if !w.Known() {
		d.fail("wrap %d", w)
	}
	return w
}

func (l *recipeLayer) parseOutputs(d *fields) {
	if l.outputs > 0 && len(l.classes) == 0 {
		d.fail("outputs without a class")
	}
	total, fixes := int64(0), int64(0)
	column := func(n int, least, limit int64, sum *int64) []byte {
		b := d.b
		for range n {
			v := d.size(limit)
			if v < least {
				d.fail("number below %d", least)
			}
			*sum += v
			if *sum > MaxSize {
				d.fail("sum above %d", MaxSize)
			}
		}
		return b[:len(b)-len(d.b)]
	}
	var ignored int64
	l.gaps = column(l.outputs, 0, MaxSize, &total)
	l.sizes = column(l.outputs, 1, MaxSize, &l.plain)
	l.picks = column(l.outputs, 0, int64(len(l.classes))-1, &ignored)
	l.parses = column(l.frames(), 1, MaxSize, &l.parse)
	l.lengths = column(l.outputs, 0, maxRecipe, &fixes)
	l.corrections = d.take(fixes)
}

// frames returns how many outputs have a parse.
func (l *recipeLayer) frames() int {
	n := 0
	for b := l.picks; len(b) > 0; {
		v, k := binary.Uvarint(b)
		if k <= 0 || v >= uint64(len(l.classes)) {
			return 0 // parse has failed
		}
		if l.classes[v].Wrap.Parsed() {
			n++
		}
		b = b[k:]
	}
	return n
}

// append encodes a recipe.
func (r *recipe) append(b []byte) []byte {
	b = put(b, int64(len(r.layers)))
	for i := range r.layers {
		l := &r.layers[i]
		b = put(b, int64(len(l.base)))
		at := int64(0)
		for _, m := range l.base {
			b = put(b, m.Off-at)
			at = m.Off + m.Packed
		}
		for _, m := range l.base {
			b = put(b, m.Packed)
		}
		for _, m := range l.base {
			b = put(b, m.Plain)
		}
		for _, m := range l.base {
			b = append(b, byte(m.Wrap))
		}
		for _, m := range l.base {
			if m.Wrap.Parsed() {
				b = put(b, m.Parse)
			}
		}
		b = put(b, int64(len(l.classes)))
		for _, c := range l.classes {
			b = append(b, byte(c.Wrap))
			if c.Wrap == layer.Zlib {
				b = append(b, c.Head[:]...)
			}
			if !c.Wrap.Parsed() {
				b = c.Params.Append(b)
			}
		}
		b = put(b, int64(l.outputs))
		for _, column := range [][]byte{l.gaps, l.sizes, l.picks, l.parses, l.lengths, l.corrections} {
			b = append(b, column...)
		}
	}
	return b
}

// add adds an output, made by the class c.
func (l *recipeLayer) add(o layer.Output) bool {
	pick := -1
	for i, c := range l.classes {
		if c == *o.Class {
			pick = i
		}
	}
	if pick < 0 {
		if pick = len(l.classes); pick == maxClasses {
			return false
		}
		l.classes = append(l.classes, *o.Class)
	}
	l.outputs++
	l.plain += o.Plain
	l.gaps = put(l.gaps, o.Gap)
	l.sizes = put(l.sizes, o.Plain)
	l.picks = put(l.picks, int64(pick))
	if o.Class.Wrap.Parsed() {
		l.parses = put(l.parses, o.Parse)
		l.parse += o.Parse
	}
	l.lengths = put(l.lengths, int64(len(o.Corrections)))
	l.corrections = append(l.corrections, o.Corrections...)
	return true
}

// needs returns what a decoder needs for the recipe.
func (r *recipe) needs() (n layer.Parts) {
	n.Memory, n.Once = r.size, r.size
	points := int64(0)
	for i := range r.layers {
		l := &r.layers[i]
		p := layer.PartsOf(l.base)
		n.Once = max(n.Once, n.Memory+p.Once)
		n.Memory += p.Memory + layer.MemberMemory*int64(len(l.base))
		n.File += p.File
		if slices.ContainsFunc(l.base, func(m layer.Member) bool { return !m.Wrap.Parsed() }) {
			n.Memory += layer.ViewMemory
			points = pointRoom
		}
		if slices.ContainsFunc(l.classes, func(c layer.Class) bool { return !c.Wrap.Parsed() }) {
			n.Memory += layer.WriterMemory
		}
		if l.parse > 0 {
			n.Memory += layer.JoinMemory
		}
	}
	n.Memory += points
	return n
}

// work returns what it costs to unpack and pack, in bytes of plain segments: packing
// counts repackWork times.
func (r *recipe) work() int64 {
	n := int64(0)
	for i := range r.layers {
		l := &r.layers[i]
		for _, m := range l.base {
			n += m.Plain
		}
		n += repackWork * l.plain
	}
	return n
}

// repackWork is how much more a byte costs that is packed than one of a plain segment.
const repackWork = 8

// regions returns where the regions of the output's view end: what is no parse, and the
// parses of each layer.
func (r *recipe) regions(size int64) (ends [maxLayers + 1]int64) {
	for i := range ends {
		ends[i] = size
	}
	for i := len(r.layers) - 1; i >= 0; i-- {
		size -= r.layers[i].parse
		for k := range i + 1 {
			ends[k] = size
		}
	}
	return ends
}

// view returns the view of the base, and what gives back its files, which are in scratch. What is unpacked as it
// is read, and again, takes from budget, in bytes. It may take spare bytes of memory beside what needs says.
func (r *recipe) view(ctx context.Context, base Source, spare int64, budget *int64, scratch string) (_ Source, end func(), err error) {
	var views []*layer.View
	end = func() {
		for _, v := range views {
			v.Close()
		}
	}
	long := int64(1)
	for i := range r.layers {
		long += layer.Long(r.layers[i].base)
	}
	for i := range r.layers {
		ms := r.layers[i].base
		v, err := layer.NewView(ctx, base, ms, MaxSize, pointRoom*(layer.Long(ms)>>10)/(long>>10+1), spare/int64(len(r.layers)), budget, scratch)
		if err != nil {
			end()
			return nil, nil, err
		}
		views = append(views, v)
		base = v
	}
	return base, end, nil
}

// packer makes the output from its view.
type packer []*layer.Writer

// packer returns one that writes to w. It must be stopped.
func (r *recipe) packer(w io.Writer) packer {
	var p packer
	for i := range r.layers {
		l := r.layers[i] // of which next takes away
		z := layer.NewWriter(w, l.next)
		p = append(p, z)
		w = z
	}
	return p
}

// region returns what takes the bytes of a region of the view.
func (p packer) region(i byte) io.Writer {
	if i == 0 {
		return p[len(p)-1]
	}
	return &p[i-1].Queue
}

// end checks that all is made.
func (p packer) end() error {
	for i := len(p) - 1; i >= 0; i-- {
		if err := p[i].Close(); err != nil {
			return err
		}
	}
	return nil
}

// stop gives up what is not complete.
func (p packer) stop() {
	for _, z := range p {
		z.Stop()
	}
}

// readRecipe reads the recipe of n bytes at off of the patch.
func readRecipe(p io.ReaderAt, off, n int64, z *zstd.Decoder) (*recipe, error) {
	b := make([]byte, n)
	if err := readPatch(p, b, off, "recipe"); err != nil {
		return nil, err
	}
	d := &decoder{z: z}
	f := &fields{b: b}
	plain := d.stream(f, nil, maxRecipe)
	if f.err == nil && len(f.b) > 0 {
		f.fail("%d bytes after the recipe", len(f.b))
	}
	if f.err != nil {
		return nil, f.err
	}
	return parseRecipe(plain)
}
