// Package lz4 takes LZ4 frames apart into their plain bytes and their parse, and puts
// them together again to the last bit.
//
//	Split       frame -> plain bytes, parse        (publisher; device, of its base)
//	SplitBlock  a block without a frame, as squashfs has them -> the same
//	Join        plain bytes, parse -> frame        (device)
//
// The parse is what the compressor decided: for each sequence of a block how many
// literals, how long a match, from how far back; and what stands in headers. Bytes of
// literals and all that follows from these (lengths in their encoding, sizes of small
// blocks, checksums) are not in it. So where two frames hold the same bytes their
// parses mostly agree, wherever in the frame that is, and whichever compressor wrote
// them.
//
// Known are frames (magic 0x184D2204, without a dictionary) and the legacy format
// (0x184C2102; Linux images and initramfs), which ends after the first block that is
// not full, or in front of what is no block.
//
// # Format of the parse
//
// Numbers are little-endian. A parse is a row of records; a record is a head of 8
// bytes and what it announces, in multiples of 8 bytes:
//
//	head    kind (1), a (1), b (1), zero (1), n (uint32)
//
//	kind 1  a frame begins: a is its FLG byte, b its BD byte; n is 1 if FLG announces
//	        the content's size, which follows (uint64), else 0
//	kind 2  a legacy frame begins
//	kind 3  a block without a frame begins
//	kind 4  a compressed block begins, n rows follow; before them the block's
//	        compressed size (uint64), if blocks of this frame may hold more than
//	        256 KiB and the frame is not of kind 3
//	kind 5  the block goes on, n rows follow
//	kind 6  a block of n bytes that is stored
//	kind 7  the frame ends
//
//	row     literals (2 bytes), length (2), offset (2), literals>>16 (1), length>>16 (1)
//
// A row is a sequence: so many literals, then a match of that length (4 or more) at that
// offset (1 or more). With offset 0 there is no match: length 0 ends the block, and
// 1..16 says that the match is in the next row, which has no literals, and that the
// lower half of the token is length - 1; Split makes such rows of 64 Ki literals and
// more. At most 32768 rows follow one head.
//
// A head, its rows and the plain bytes that these, or n, stand for are a unit. A block goes
// on in another (kind 5) behind a row with which the plain bytes of the unit become more
// than 256 KiB, and in front of a sequence, which has one row or two, if they are more than
// 192 KiB or its rows more than 32766; and nowhere else.
package lz4

import "errors"

var (
	// ErrFormat reports bytes that are no frame, or a broken one.
	ErrFormat = errors.New("not an lz4 frame")
	// ErrUnsupported reports a frame that Join could not make again.
	ErrUnsupported = errors.New("unsupported lz4 frame")
	// ErrCorrupt reports plain bytes and a parse that do not go together.
	ErrCorrupt = errors.New("corrupt lz4 parse")
)

// Bounds of what Split and Join hold, in bytes.
const (
	SplitMemory = window + unitPlain + unitRows*rowSize + inputSize + 8<<10
	JoinMemory  = unitRows*rowSize + inputSize + 2*sizedAbove + 2*flushAt + 8<<10
)

const (
	magicFrame  = 0x184D2204
	magicLegacy = 0x184C2102

	window    = 64 << 10  // how far back a match may reach
	unitPlain = 256 << 10 // plain bytes of a unit, at most
	unitRows  = 32 << 10  // rows under one head, at most
	inputSize = 64 << 10
	flushAt   = 64 << 10 // packed bytes that Join collects, unless it needs the whole block

	longRun    = 64 << 10  // so many literals are a row of their own
	sizedAbove = 256 << 10 // the parse has the compressed sizes of blocks that may be larger than this
	legacySize = 8 << 20   // plain bytes of a legacy block
	minMatch   = 4
)
