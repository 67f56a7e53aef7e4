// Package zstd takes Zstandard frames (RFC 8878) apart so that they can be put together
// again to the last bit, whatever compressor made them.
//
//	Split  frame -> plain bytes, parse      (publisher; device: base)
//	Join   plain bytes, parse -> frame      (device: output)
//
// The parse has what the compressor decided: where blocks end, which matches it took,
// how literals and sequences are coded. All else follows from it and the plain bytes:
// literals, sizes of what is packed, bit streams, checksum. So Join needs no window, and
// where the content is as it was, so is the parse: nothing in it tells a position.
// Skippable frames, frames with dictionaries and those with matches farther back than
// MaxWindow are not taken apart.
//
// Guarantees: what Join makes of what Split wrote is the frame, bit by bit, or an error;
// the same input gives the same parse; Split holds at most SplitMemory, Join JoinMemory,
// whatever they are told; each takes time in proportion to what it reads and writes.
//
// # Parse
//
// A parse is a record of the frame and then, for each block, its record, descriptions and
// rows. All have a multiple of 8 bytes; numbers are little-endian; what has no meaning
// is 0. The frame:
//
//	descriptor 1, window 1   as they stand behind the magic number; window 0: there is none
//	zeros      6
//	size       8             of the plain bytes, 0 if the header does not tell it
//
// A block:
//
//	kind       1   bits 0-1: 0 raw, 1 run, 2 packed; bit 2: the last
//	literals   1   bits 0-1: as in the header of the literals; bit 2: four streams; bits
//	               3-4: unless 0, their sizes take the least, middle, largest of three
//	               widths (1, 2, 3), other than expected: less than 32 literals the
//	               least, less than 4096 the middle; with a tree 1024 and 16384
//	modes      1   of the codes, as they stand in front of the tables
//	flags      1   1: the number of sequences takes two bytes, not one; 2: there are
//	               states; 16, 32, 64, 128: the tree, the tables of run lengths, offsets,
//	               match lengths are given
//	size       4   of the plain bytes
//
// and, unless the block is raw or a run, in which case literals, modes and flags are 0,
//
//	sequences  4
//	zeros      4
//	given          for each bit among the flags: length 1, the description (RFC 8878,
//	               4.1.1, 4.2.1) as it stands in the block, zeros
//	states     8   if there are: 2 each for run lengths, offsets, match lengths, and 2 zeros: the
//	               states in which encoding began, the last of decoding; otherwise these
//	               are the lowest of their symbols
//	rows       8   one for each sequence: length of the run of literals 2, of the match
//	               2, offset 4, as it is coded: 1 to 3 for one used before, else the
//	               distance + 3. In front of one of which a length is above 65535, one
//	               with offset 0 and the upper halves of the lengths
//
// The literals behind the last match take what remains of the size.
package zstd
