package deflate

import (
	"encoding/binary"
	"fmt"
)

// Corrections are two lists, tokens and blocks, each a run of entries that first
// tell how many decisions before this one were right (uvarint).
//
//	corrections = uvarint(length of tokens) tokens blocks; empty: none at all
//	token       = uvarint(skip) uvarint(0: literal, else distance<<8 | length-3)
//	block       = uvarint(skip) flags [uvarint(count)] [uvarint(bits) code]
const (
	flagTokens  = 1 << 0 // the block ends after count tokens
	flagBytes   = 1 << 1 // the block ends after count plain bytes
	flagKind    = 1 << 2 // its kind is flags>>5
	flagFinal   = 1 << 3 // it is final, or not, against expectation
	flagCode    = 1 << 4 // its dynamic header
	kindShift   = 5
	maxCodeBits = 14 + 3*lenCodes + 14*(litCodes+distCodes)
)

// blockFix corrects a block.
type blockFix struct {
	flags byte
	count int
	code  []byte
	bits  int
}

// noter collects corrections.
type noter struct {
	tokens, blocks []byte
	right, rightB  int // decisions since the last entry
}

func (n *noter) token(want token) {
	n.tokens = binary.AppendUvarint(n.tokens, uint64(n.right))
	v := uint64(0)
	if want.isMatch() {
		v = uint64(want.dist())<<8 | uint64(want.length()-minMatch)
	}
	n.tokens = binary.AppendUvarint(n.tokens, v)
	n.right = 0
}

func (n *noter) block(f blockFix) {
	n.blocks = binary.AppendUvarint(n.blocks, uint64(n.rightB))
	n.blocks = append(n.blocks, f.flags)
	if f.flags&(flagTokens|flagBytes) != 0 {
		n.blocks = binary.AppendUvarint(n.blocks, uint64(f.count))
	}
	if f.flags&flagCode != 0 {
		n.blocks = binary.AppendUvarint(n.blocks, uint64(f.bits))
		n.blocks = append(n.blocks, f.code...)
	}
	n.rightB = 0
}

func (n *noter) len() int { return len(n.tokens) + len(n.blocks) }

func (n *noter) bytes() []byte {
	if n.len() == 0 {
		return nil
	}
	b := binary.AppendUvarint(nil, uint64(len(n.tokens)))
	b = append(b, n.tokens...)
	return append(b, n.blocks...)
}

// fixes reads corrections; they stay as they are, in b.
type fixes struct {
	tokens, blocks []byte
	skip, skipB    uint64 // right decisions before the next entry
	more, moreB    bool   // there is a next entry
}

func (f *fixes) parse(b []byte) error {
	*f = fixes{}
	if len(b) == 0 {
		return nil
	}
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return corrupt("length")
	}
	f.tokens, f.blocks = b[k:k+int(n)], b[k+int(n):]
	if err := f.nextToken(); err != nil {
		return err
	}
	return f.nextBlock()
}

func corrupt(what string) error { return fmt.Errorf("deflate: %w: %s", ErrCorrupt, what) }

func number(b *[]byte) (uint64, error) {
	v, n := binary.Uvarint(*b)
	if n <= 0 {
		return 0, corrupt("number")
	}
	*b = (*b)[n:]
	return v, nil
}

func (f *fixes) nextToken() (err error) {
	if f.more = len(f.tokens) > 0; f.more {
		f.skip, err = number(&f.tokens)
	}
	return err
}

func (f *fixes) nextBlock() (err error) {
	if f.moreB = len(f.blocks) > 0; f.moreB {
		f.skipB, err = number(&f.blocks)
	}
	return err
}

// token returns what to write for the predicted t, of which ahead plain bytes are
// known; lit is the first of them.
func (f *fixes) token(t token, lit byte, ahead int) (token, error) {
	if !f.more {
		return t, nil
	}
	if f.skip > 0 {
		f.skip--
		return t, nil
	}
	v, err := number(&f.tokens)
	if err != nil {
		return 0, err
	}
	if v == 0 {
		return token(lit), f.nextToken()
	}
	length, dist := int(v&0xff)+minMatch, v>>8
	if dist == 0 || dist > maxWindow || length > ahead {
		return 0, corrupt("token")
	}
	return matchToken(length, int(dist)), f.nextToken()
}

// block returns the correction of the block that begins.
func (f *fixes) block() (fix blockFix, err error) {
	if !f.moreB {
		return fix, nil
	}
	if f.skipB > 0 {
		f.skipB--
		return fix, nil
	}
	if len(f.blocks) == 0 {
		return fix, corrupt("flags")
	}
	fix.flags = f.blocks[0]
	f.blocks = f.blocks[1:]
	if fix.flags&flagKind != 0 && fix.flags>>kindShift > kindDynamic {
		return fix, corrupt("kind of block")
	}
	if fix.flags&(flagTokens|flagBytes) != 0 {
		v, err := number(&f.blocks)
		if err != nil {
			return fix, err
		}
		if v > maxTokens {
			return fix, corrupt("tokens of a block")
		}
		fix.count = int(v)
	}
	if fix.flags&flagCode != 0 {
		v, err := number(&f.blocks)
		if err != nil {
			return fix, err
		}
		if v > maxCodeBits || (v+7)/8 > uint64(len(f.blocks)) {
			return fix, corrupt("code")
		}
		fix.bits = int(v)
		fix.code, f.blocks = f.blocks[:(v+7)/8], f.blocks[(v+7)/8:]
	}
	return fix, f.nextBlock()
}
