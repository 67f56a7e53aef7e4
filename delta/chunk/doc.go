// Package chunk cuts byte streams at content-defined boundaries and names the
// pieces.
//
// The cuts follow FastCDC (Xia et al., "FastCDC: a Fast and Efficient
// Content-Defined Chunking Approach for Data Deduplication", USENIX ATC 2016)
// with normalised chunking: a 64-bit gear hash
//
//	h = h<<1 + gear[b]
//
// rolls over the bytes, and a chunk ends after the byte that makes h & mask
// zero. No cut happens in the first Min bytes of a chunk; up to Normal bytes the
// mask has one bit more than log2(Normal), afterwards one bit less, and at Max
// bytes the cut is forced. Two details differ from the paper's listing: the hash
// starts 64 bytes before Min, so a cut depends on the 64 bytes before it and on
// nothing else, and the mask bits are the highest ones, which is where those 64
// bytes are all felt.
//
// gear[i] is the first eight bytes, big endian, of sha256("updraft gear 1" ++ byte(i)).
//
// Guarantees: cuts depend on the bytes since the last forced boundary and on
// Params, never on the sizes of reads and writes, the machine or the time; every
// chunk but the last before a boundary has Min < Len ≤ Max; the parameters of
// Default and the gear table are part of the published format and pinned by
// golden tables in testdata.
//
// A chunk's name is sha2-256 over its plain bytes: [32]byte inside the program,
// CIDv1 (raw, sha2-256) where people and other tools see it. An index lists the
// chunks of a stream in pages of PageLen fixed-width records.
package chunk
