package patch

// pages reads the base, or its view, by pages, of which it keeps the last: covers are
// many and short, and come again to where others have been.
type pages struct {
	src  Source
	size int64
	buf  []byte           // nil until it is wanted
	held [pageSlots]int64 // the page in each part of buf, plus 1
}

const (
	pageSize  = 4 << 10
	pageSlots = 256
)

// read reads all of b at offset off.
func (p *pages) read(b []byte, off int64) error {
	if len(b) >= 2*pageSize {
		return readFull(p.src, b, off)
	}
	for len(b) > 0 {
		page, err := p.page(off / pageSize)
		if err != nil {
			return err
		}
		n := copy(b, page[off%pageSize:])
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// resize notes that the base has size bytes now.
func (p *pages) resize(size int64) {
	p.size, p.held = size, [pageSlots]int64{}
}

// page returns page i, which begins within the base.
func (p *pages) page(i int64) ([]byte, error) {
	if p.buf == nil {
		p.buf = make([]byte, pageSlots*pageSize)
	}
	slot := i % pageSlots
	b := p.buf[slot*pageSize:][:min(pageSize, p.size-i*pageSize)]
	if p.held[slot] == i+1 {
		return b, nil
	}
	p.held[slot] = 0
	if err := readFull(p.src, b, i*pageSize); err != nil {
		return nil, err
	}
	p.held[slot] = i + 1
	return b, nil
}
