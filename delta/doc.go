// Package delta makes releases: it turns files and directories into chunks, packs,
// patches and a manifest, and reads an artifact back from what was published.
//
// Build reads each input once as one stream (see delta/tree for directories), cuts
// it (delta/chunk), compresses the chunks that no earlier release holds, each by
// itself, and lays them one after the other in a single new pack. A pack map says,
// for every chunk of an artifact, in which pack it lies and where. For each of the
// newest earlier releases a patch (delta/patch) is made against the artifact of the
// same name and kept when it is worth its place. From releases further back the
// patches that earlier Builds left make chains, by the way with the fewest bytes.
//
// What Build writes is a tree of files named by digest, ready to be copied below
// an origin's root; FORMAT.md beside this file states every field.
//
// Guarantees: the same inputs, options and earlier releases give the same bytes,
// whatever the number of jobs; memory is bounded whatever the size of the inputs;
// a Build that fails, is cancelled or killed leaves files in its staging directory only,
// and the next one there goes on from whole chunks and whole patches of it;
// whatever is read back from an origin is verified against the manifest's digests
// before it is used.
//
// Nothing here touches the network.
package delta
