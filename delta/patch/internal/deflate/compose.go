package deflate

// composer collects the tokens of a block, decides as zlib does when the block ends
// and how it is written, and writes it.
type composer struct {
	p          Params
	tokens     []token
	lit        [litCodes]uint32 // frequencies
	dist       [distCodes]uint32
	matches    int
	raw        []byte // the block's plain bytes, the first maxStored
	size       int64  // plain bytes in the block
	tree       tree
	merge      merger    // Go: instead of tree
	header     bitWriter // of the dynamic block that plan would write, behind its kind
	headerBits int
	litLens    [litCodes]uint8
	distLens   [distCodes]uint8
	code       [288]uint16
	litOut     [288]uint32 // code | length<<16
	distOut    [distCodes]uint32
}

const (
	maxStored = 1<<16 - 1
	maxTokens = 1 << 17 // of a block; more are not recreated
)

func (c *composer) reset(p Params) {
	c.p = p
	c.begin()
}

// begin starts a block.
func (c *composer) begin() {
	c.tokens, c.raw, c.size, c.matches = c.tokens[:0], c.raw[:0], 0, 0
	c.lit, c.dist = [litCodes]uint32{}, [distCodes]uint32{}
	c.lit[endBlock] = 1
}

// add takes the next token with its plain bytes, at place within the block, and
// reports whether the compressor would end the block here.
func (c *composer) add(t token, plain []byte, place int) bool {
	c.tokens = append(c.tokens, t)
	if room := maxStored - len(c.raw); room > 0 {
		c.raw = append(c.raw, plain[:min(room, len(plain))]...)
	}
	c.size += int64(len(plain))
	if t.isMatch() {
		c.matches++
		c.lit[endBlock+1+int(rfc.lenCode[t.length()])]++
		c.dist[rfc.distCode[distSlot(t.dist())]]++
	} else {
		c.lit[t]++
	}
	n := len(c.tokens)
	if n == c.p.symbols() {
		return true
	}
	return c.p.Family == Gzip && n&0xfff == 0 && c.p.Level > 2 && c.pays(place)
}

// pays is gzip's guess that the block compresses to less than half.
func (c *composer) pays(place int) bool {
	n := len(c.tokens) * 8
	for i, f := range c.dist {
		n += int(f) * (5 + int(rfc.distExtra[i]))
	}
	return c.matches < len(c.tokens)/2 && n>>3 < place/2
}

// plan returns the kind of block that the compressor would write, and leaves the
// dynamic header in c.header. lost: the plain bytes have left its window.
func (c *composer) plan(lost bool) int {
	if c.p.Family == Golang {
		return c.planGo(lost)
	}
	lens, lastLit := c.tree.build(c.lit[:], 15)
	copy(c.litLens[:], lens)
	lens, lastDist := c.tree.build(c.dist[:], 15)
	copy(c.distLens[:], lens)
	dynamic := c.makeHeader(lastLit+1, lastDist+1)
	fixed := 0
	for i, f := range c.lit {
		extra := 0
		if i > endBlock {
			extra = int(rfc.lenExtra[i-endBlock-1])
		}
		dynamic += int(f) * (int(c.litLens[i]) + extra)
		fixed += int(f) * (int(rfc.fixedLit[i]) + extra)
	}
	for i, f := range c.dist {
		dynamic += int(f) * (int(c.distLens[i]) + int(rfc.distExtra[i]))
		fixed += int(f) * (5 + int(rfc.distExtra[i]))
	}
	dynamic, fixed = (dynamic+3+7)/8, (fixed+3+7)/8
	least := dynamic
	if fixed <= dynamic || c.p.Strategy == Fixed {
		least = fixed
	}
	switch {
	case c.size+4 <= int64(least) && !lost && c.size <= maxStored:
		return kindStored
	case least == fixed:
		return kindFixed
	}
	return kindDynamic
}

// final reports whether the compressor would make the block its last: done tells that
// all bytes are in blocks, full that it ended the block for other reasons than that.
func (c *composer) final(done, full bool) bool {
	if c.p.Family == Golang {
		return done && len(c.tokens) == 0
	}
	return done && !full
}

// makeHeader writes the header of a dynamic block to c.header and returns its bits.
func (c *composer) makeHeader(nlit, ndist int) int {
	var runs [litCodes + distCodes]uint16 // symbol | extra<<8
	var all []uint16
	if c.p.Family == Golang {
		var lens [litCodes + distCodes]uint8
		all = goRuns(append(append(lens[:0], c.litLens[:nlit]...), c.distLens[:ndist]...), runs[:0])
	} else {
		all = runLengths(c.litLens[:nlit], runs[:0])
		all = runLengths(c.distLens[:ndist], all)
	}
	var freq [lenCodes]uint32
	for _, r := range all {
		freq[r&0xff]++
	}
	var lens []uint8
	if c.p.Family == Golang {
		var of [lenCodes]uint8
		lens = of[:]
		c.merge.build(freq[:], 7, lens)
	} else {
		lens, _ = c.tree.build(freq[:], 7)
	}
	nlen := lenCodes
	for nlen > 4 && lens[lenOrder[nlen-1]] == 0 {
		nlen--
	}
	h := &c.header
	h.reset()
	h.put(uint32(nlit-257), 5)
	h.put(uint32(ndist-1), 5)
	h.put(uint32(nlen-4), 4)
	for _, i := range lenOrder[:nlen] {
		h.put(uint32(lens[i]), 3)
	}
	canonical(lens, c.code[:])
	for _, r := range all {
		s := r & 0xff
		h.put(uint32(c.code[s]), uint(lens[s]))
		switch s {
		case 16:
			h.put(uint32(r>>8), 2)
		case 17:
			h.put(uint32(r>>8), 3)
		case 18:
			h.put(uint32(r>>8), 7)
		}
	}
	c.headerBits = h.len()
	h.align()
	return c.headerBits
}

// runLengths appends the symbols for lens: a length that follows itself is repeated 3
// to 6 times by 16; 17 and 18 are 3 to 10 and 11 to 138 zeros.
func runLengths(lens []uint8, out []uint16) []uint16 {
	prev := -1
	for i := 0; i < len(lens); {
		l, most, least := int(lens[i]), 7, 4
		switch l {
		case 0:
			most, least = 138, 3
		case prev:
			most, least = 6, 3
		}
		n := 1
		for n < most && i+n < len(lens) && int(lens[i+n]) == l {
			n++
		}
		i += n
		switch {
		case n < least:
			for range n {
				out = append(out, uint16(l))
			}
		case l == 0 && n <= 10:
			out = append(out, 17|uint16(n-3)<<8)
		case l == 0:
			out = append(out, 18|uint16(n-11)<<8)
		default:
			if l != prev {
				out = append(out, uint16(l))
				n--
			}
			out = append(out, 16|uint16(n-3)<<8)
		}
		prev = l
	}
	return out
}
