// Package patch encodes a byte stream as the difference from another, its base,
// and decodes it.
//
// A patch is a header, a table of segments and their payloads (FORMAT.md has every
// field). Segments follow one another in the output and decode independently:
//
//	copy   one run of the base, as it is; of any length; a few bytes in the patch
//	plain  up to 4 MiB of output: covers (runs of the base that agree with the new
//	       bytes mostly), the differences within them, and literal bytes between
//	       them, by a coder with few contexts (many literals: in zstd frames)
//	dense  the same output from an index of all covers, which comes first, and a
//	       context-mixing coder; in programs (ELF for arm64, ARM, x86,
//	       RISC-V) it predicts from the index where the target of each reference went;
//	       a third to two thirds smaller on code, five to fifteen times slower to decode
//
// What base and output hold in deflate streams (gzip, zlib, zip, squashfs) and in frames
// of zstd, lz4 and xz (squashfs and EROFS too), two layers deep, is seen unpacked: a recipe in front says where
// they are in the base, and how those of the output are made again, bit by bit: deflate
// streams by the decisions of zlib, gzip or Go, and corrections; frames by their parse,
// what their compressor decided, which is patched as everything else is. Streams that
// are in both, or are made otherwise, stay as they are.
//
// What the output has several times and the base has not, or not so, is decoded first, and
// once, into an appendix of the base.
//
// Covers are found in the manner of bsdiff (C. Percival, "Naive differences of
// executable code", 2003): exact seeds, here from hash chains over the base,
// extended in both directions while most bytes agree; what moved in code leaves
// small, regular differences that compress well.
//
// Guarantees: the same inputs and options give the same patch; a decoder's memory
// depends on the sizes in front of the segments only, and is at most 32 MiB for what Create makes
// (DecodeOptions.Memory bounds it for others); the base is read by ranges; no
// length in a patch is trusted; plain and dense segments are checked against a checksum
// before they are written, and the whole output against its digest at the end.
package patch
