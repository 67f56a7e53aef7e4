// Package lz4 takes LZ4 frames apart into their plain bytes and their parse, and puts
// them together again to the last bit.
//
//	Split       frame -> plain bytes, parse        (publisher; device, of its base)
//	SplitBlock  a block without a frame, as squashfs has them -> the same as Split
//	Join        plain bytes, parse -> frame        (device)
//
// The parse is what the compressor decided: for each sequence of a block how many
// literals, how long a match, from how far back; and what stands in headers. Bytes of
// literals and all that follows from these (lengths in their encoding, sizes of small
// blocks, checksums) are not in it. So where two frames hold the same bytes their
// parses mostly agree, wherever in the frame that is, and whichever compressor wrote
// them. Of blocks that LZ4_compress_default made, which mksquashfs and lz4 use unless they
// are told to take their time, Join does what that does, and the parse says little more
// than that.
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
//	        256 KiB and the frame is not of kind 3; a is how the unit is told
//	kind 5  the block goes on, n rows follow; a as with kind 4
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
// 192 KiB or its rows more than 32766; and nowhere else. If the row with which a unit ends goes
// on behind 256 KiB, what is behind belongs to no unit.
//
// # What is expected
//
// With a = 0 all sequences have their rows. Else the number of plain bytes of the unit
// (uint64, at most 256 KiB) is in front of the rows, and these tell only what is not
// expected; a is 1 if the block goes on behind the unit, be it only with the literals of the
// row with which that ends, 2 if it ends with it. A row with
// offset 0 and length 17 stands for as many sequences, which are as expected, as it has
// literals; with 0 literals for all that are left of the unit, even if there is one only.
// A unit is told so if blocks are independent, all units in front of it of its block are,
// and sequences that are not as expected are not more than an eighth of its rows, all
// counted. One of 64 Ki literals or more never is as expected.
//
// Places count from the beginning of the block. There is a table of places by hashes, all
// 0 when the block begins. The hash is of the four bytes at a place, times 2654435761
// modulo 2^32, the highest 13 bits, if the unit ends the block and that has less than
// 65547 bytes; else of the five bytes there, times 2^24*889523592379 modulo 2^64, the
// highest 12 bits. To swap a place is to enter it for its hash, and to look at the one that
// was there: it fits if it is in front of the place, at most 65535, and has the same four
// bytes.
//
// A sequence begins at p. If that is not where the block begins, p-2 is swapped, and then p;
// if what was there fits, it is the match. Else p is swapped; then from p+1 on places
// until what was there fits. From one to the next are 65 steps of 1, then 64 of 2, 64 of 3
// and so on. The match is what agrees at both, forwards to 5 bytes in front of the block's
// end, and from p+1 on backwards as well, to p or to where the block begins.
//
// If the unit ends the block, what is left are literals where p has less than 12 bytes, 13 if
// the block begins there; or, before a place is swapped, where the next one has less than
// 11. If it does not, nothing is expected where p, or before a place is swapped the next
// one, has less than 8 bytes in the unit; or where the match reaches its end. What was
// swapped stays so. Whatever the sequence is, the next one begins behind it.
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
	SplitMemory = window + unitPlain + 2*unitRows*rowSize + inputSize + 48<<10
	JoinMemory  = unitRows*rowSize + window + unitPlain + 2*sizedAbove + 2*flushAt + 48<<10
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
