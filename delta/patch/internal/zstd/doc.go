// Package zstd takes Zstandard frames (RFC 8878) apart so that they can be put together
// again to the last bit, whatever compressor made them.
//
//	Split  frame -> plain bytes, parse      (publisher; device: base)
//	Join   plain bytes, parse -> frame      (device: output)
//
// The parse has what the compressor decided: where blocks end, which matches it took,
// how literals and sequences are coded. All else follows from it and the plain bytes:
// literals, sizes of what is packed, bit streams, checksum. Matches are told by what is
// to be expected, and mostly that is so: Join looks for candidates in the last 128 KiB, whatever
// the window of the frame. Where the content is as it was, so is the parse: nothing in
// it tells a position.
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
// rows, which are a unit together with its plain bytes. All have a multiple of 8 bytes; numbers are little-endian; what has no meaning
// is 0. The frame:
//
//	descriptor 1, window 1   as they stand behind the magic number; a single segment has no
//	                         window, and 0 here
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
//	flags      1   1: the number of sequences takes two bytes, though it is below 128; 2: there
//	               are states; 16, 32, 64, 128: the tree, the tables of run lengths, offsets,
//	               match lengths are given
//	size       4   of the plain bytes
//
// and, unless the block is raw or a run, in which case literals, modes and flags are 0,
//
//	sequences  4
//	logs       4   of the tree and the tables of run lengths, offsets, match lengths, where the
//	               block has such a description and it is the one expected
//	given          for each bit among the flags: length 1, the description (RFC 8878,
//	               4.1.1, 4.2.1) as it stands in the block, zeros
//	states     8   if there are: 2 each for run lengths, offsets, match lengths, and 2 zeros: the
//	               states in which encoding began, the last of decoding; there are unless
//	               each of these is the lowest of its symbol
//	rows       8   for each sequence one, or two
//
// The literals behind the last match take what remains of the size.
//
// # Rows
//
// A row tells a sequence by what its plain bytes let expect:
//
//	run        2   length of the run of literals
//	lacks      1   what the length of the match lacks
//	choice     1   0: the longest candidate; 4 and up: the one 1 and more in front of it; 1,
//	               2, 3: an offset used before, as it is coded; 255: any
//	offset     4   as it is coded, the distance + 3, if the choice is 255; else 0
//
// If run or what the match lacks take more bits, a row with the upper ones is in front: run
// 2, lacks 2, and 2^24 in 4.
//
// A match at place i of the frame can be as long as its bytes agree with those at its
// distance, within the block. If the distance is at most 128 KiB and not more than i, and
// that length is below 2048, lacks is what it is longer than the match; else lacks is the
// length of the match less 3.
//
// Candidates are looked for where four bytes or more of the block are left. Every place
// before i that three bytes or more follow, up to the end of the block, has been entered, one
// after the other: as the last one of the hash of its three bytes, v<<8*2654435769>>18, v
// being the four bytes there, and of its four, v*2654435769>>17, in 32 bits. It leads to
// the one that was the last of the latter, if that is less than 64 KiB away. At i, the last
// place of the hash of three is looked at; then that of four, and those to which each
// leads, 16 in all, until one is farther away than 128 KiB or than the frame's
// beginning. Each becomes a candidate that agrees for more bytes than those before it, 3 or more,
// places of four only with all four; 256 bytes, or all that are left of the block, are the
// most, and end this. The offset of a candidate is 1, 2 or 3 if that means its
// distance, the least of these, else its distance + 3. A sequence whose offset that is
// tells the candidate; one that has it coded otherwise, or whose distance no candidate has,
// its offset.
//
// # Descriptions
//
// A description is expected to be that which libzstd makes. Of a table: the codes are
// counted, but not the last sequence's unless it is the only one of its kind; shares are normalized
// for 1<<log states (the lower 7 bits), rare symbols having one state or, with bit 7, less; bit 7
// is set only if the description is not the one without it. Of the
// tree: a Huffman code of the literals, nodes being joined before leaves of the same count
// and leaves of higher bytes before others, cut to as many bits as log says; its
// weights are coded with a table of at most 64 states if that takes less than half of a
// byte each. shares.go and tree.go say it shortest, and are normative. A description that is
// another is given.
package zstd
