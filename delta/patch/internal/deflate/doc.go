// Package deflate takes raw deflate streams (RFC 1951) apart so that they can be put
// together again to the last bit.
//
// A stream is the work of some compressor: of which matches it looked for, where it
// ended blocks and how it built its codes. Analyze finds the settings under which our
// own compressor, which decides as zlib, GNU gzip, Info-ZIP and Go do, makes the same
// decisions, and notes those that come out otherwise:
//
//	Analyze   stream -> Params, corrections          (publisher)
//	NewReader stream -> plain bytes                  (both)
//	NewWriter plain bytes, Params, corrections -> stream   (device)
//
// The unit of agreement is the decision: a predicted token (literal, or length and
// distance), the end of a block, its kind, its code. After each decision the
// compressor goes on from what the stream did, so one that differs costs a few bytes
// of correction and nothing after it. Streams of other compressors cost many; beyond
// a share of the stream Analyze gives up with ErrForeign.
//
// Guarantees: what Analyze returns has been written by Writer and compared with the
// stream; the same input gives the same bytes on every machine; a Reader holds about
// 100 KiB, a Writer less than 1 MiB, whatever a stream claims; corrections are
// parsed with bounds and can make a Writer fail or write other bytes, nothing else.
package deflate
