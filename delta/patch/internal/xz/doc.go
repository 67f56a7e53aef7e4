// Package xz takes .xz streams apart into their plain bytes and their parse, and puts
// them together again to the last bit.
//
//	Split  stream -> plain bytes, parse    (publisher; device, of its base)
//	Join   plain bytes, parse -> stream    (device)
//
// The parse is what the compressor decided: after how many literals which match, how
// long and from how far back or by which of the last distances, where chunks end and
// what they reset, and what stands in headers. Bytes of literals, the range coder's
// probabilities, compressed sizes, checks and the index are not in it: they follow from
// these and the plain bytes. Distances and lengths mostly are not, either: a match is told
// by how it differs from the longest one at the nearest place. So where two streams hold the same bytes their parses
// mostly agree, wherever in the stream that is, and whichever encoder wrote them.
//
// The plain bytes are those that LZMA2 gives. With filters in front of it (BCJ, delta)
// they are filtered, and the check, which is of unfiltered bytes, is in the parse.
//
// A literal behind a match is coded with the byte at the match's distance. Join keeps
// the last 256 KiB; where that byte is farther back, the parse has it.
//
// Streams with several blocks (up to 2048) are taken, several streams are several members.
// Matches from more than 8 MiB back are not, nor what no encoder writes: a range coder
// with bytes left over, padding that is not zero.
//
// # Format of the parse
//
// Numbers are little-endian. A parse is a row of records; a record is a head of 8
// bytes and what it announces, in multiples of 8 bytes, filled up with zeros:
//
//	head    kind (1), a (1), b (1), zero (1), n (uint32)
//
//	kind 1  a stream begins: a is the type of its check, of those with the numbers 0, 1,
//	        4 and 10; n is 0
//	kind 2  a block begins: a is the first byte of its header (the size), b the second
//	        (flags), n the length of the list of filters; it is followed by compressed
//	        and uncompressed size (uint64 each), if the flags say so, and the list as it
//	        stands in the header
//	kind 3  an LZMA chunk begins: a is what it resets (0 nothing, 1 the state, 2 also
//	        the properties, 3 also the dictionary), b the byte of properties, 0 unless
//	        it has one; it is followed by the number of plain bytes (uint64) that its
//	        n rows stand for, and these
//	kind 4  the chunk goes on: plain bytes and n rows as in kind 3
//	kind 5  a chunk of n bytes that is not compressed: a is 1 if it resets the
//	        dictionary, else 2
//	kind 6  the block ends; with filters in front of LZMA2 n is the length of its check,
//	        which follows, else 0
//	kind 7  the stream ends
//
//	row     literals (1 byte), missing (1), flags (1), match byte (1), distance (uint32)
//
// A row is a run of literals, and what is behind it: flags & 7 is 0 nothing, 1 a match,
// 2 to 5 a match at the last distance to the fourth last, 6 one byte at the last
// distance. Flags & 8 adds 256 to missing; the higher four bits are the literals' bits 8
// to 11. What a kind of row does not need is 0. The match byte is the one to code the
// first literal with, if it is coded behind a match and the distance back to that byte is
// more than 256 KiB. Nothing is behind 4095 literals, nor behind those that end a chunk.
//
// What follows one head is a unit, of at most 24576 rows and 139264 plain bytes: the chunk
// goes on in another (kind 4) behind the row with which its rows are 24576, or its plain
// bytes more than 134896.
//
// A match is told by what a compressor would most likely take, which both sides find in
// the plain bytes, up to the end of the unit and at most 273 of them. If its distance
// (kind 1) is 0, its length is that of the longest match at the places below, minus
// missing; and its distance is that of the first of these where a match of this length
// is. So it is told wherever that gives the match. Else its distance, or that of a repeated
// match, is known, and its length is that of the longest match there, minus missing; for a
// distance above 256 KiB, the length is missing + 2.
//
// The places are, if four bytes or more of the unit follow, at most 128 KiB back and not in
// front of the last reset of the dictionary, in this order as far as each gives a longer match
// than those before (at least 2): the last position in the stream with the same h(2), the last with
// the same h(3), up to 16 positions with the same h(4), the last first, but none behind a
// step of more than 65535 from one to the next. h(k) is the number in the next k bytes, times
// 2654435761 modulo 2^32, of that the highest 14 bits for h(2), and 15 for the others.
// A position counts once its four bytes are in units that began before it or are the
// unit at hand: the last three of a unit count from the next one on. A chunk that is not
// compressed is a unit. The last distances are all 1 when a chunk resets the state.
package xz

import "errors"

var (
	// ErrFormat reports bytes that are no .xz stream, or a broken one.
	ErrFormat = errors.New("not an xz stream")
	// ErrUnsupported reports a stream that Join could not make again, or one that
	// takes more memory than Split has.
	ErrUnsupported = errors.New("unsupported xz stream")
	// ErrCorrupt reports plain bytes and a parse that do not go together.
	ErrCorrupt = errors.New("corrupt xz parse")
)

// Bounds of what Split and Join hold, in bytes.
const (
	SplitMemory = maxWindow + 3<<20
	JoinMemory  = 3 << 19
)

const (
	maxWindow = 8 << 20   // how far back a match may reach
	keep      = 256 << 10 // how far back Join sees
	maxBlocks = 2048      // of a stream

	unitPlain = 136 << 10 // plain bytes of a unit, at most: a block of squashfs, and some
	unitRows  = 24 << 10  // rows under one head, at most
	maxRun    = 1<<12 - 1 // literals of a row, at most

	chunkPlain  = 2 << 20  // plain bytes of a chunk, at most
	chunkPacked = 64 << 10 // of its compressed bytes, or plain ones if it is stored
	minMatch    = 2
	maxMatch    = 273
)
