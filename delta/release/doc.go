// Package release describes a version of the software, and carries the trust in
// that description from the publisher to a device.
//
// # Manifest
//
// A manifest lists what a release is made of: artifacts with their digests, the
// pages of their chunk index, the packs that hold the chunks, and patches from
// earlier releases. It is CBOR in the deterministic encoding of RFC 8949 §4.2.1
// with small integer keys, so the same release is the same bytes; Decode accepts
// only those bytes. Every name, count and length in it is bounded before use.
//
// Beside a manifest the channel signs its steps: patches between earlier artifacts.
// Ways returns what they and the manifest's own patches make possible, the shortest chain
// for each base. A device that cannot read steps goes without.
//
// # Publisher
//
// A Repo writes manifests into an origin tree under TUF metadata (root, targets
// with one delegation per channel and one for revocations, snapshot, timestamp; Ed25519; consistent
// snapshots). New files are written and synced first and timestamp.json is
// replaced last, so a publish that is interrupted leaves the origin as it was. Roles
// may have several keys and a threshold; the root can be signed on other machines
// (NextRoot, SignRoot, ImportRoot).
//
// # Device
//
// A Trust runs the TUF client workflow over whatever fetches for it, an origin or
// a peer, and keeps the metadata in files of its own. Each file is checked when it
// is read: a torn one is fetched again and never stops the device. The newest
// versions, sequence numbers and signed time ever accepted are kept apart from
// the metadata, as floors below which nothing is accepted. They are those of a fleet:
// enrolled in another one, a device begins anew. What is accepted is in force at once, and
// if the disk is full it is written later (ErrNotKept). A device without a
// clock uses the signed time as its clock, from which time passes while it is on. So may whoever stole the key that signs it, until
// a new root takes that from him: what ends whatever is published goes by it only where
// there is nothing better (CertificateTime).
//
// What a Trust holds it serves to peers by the names of the origin tree:
//
//	metadata/timestamp.json              the one file that changes
//	metadata/<n>.root.json               every root, in a chain
//	metadata/<n>.snapshot.json
//	metadata/<n>.targets.json            delegations to channels
//	metadata/<n>.<channel>.json          current manifest for each device type, its steps; "/" of a channel is "~"
//	targets/<channel>/<sha256>.<type>    manifests
//	metadata/<n>.revoked.json            current list of revoked devices, once there is one
//	targets/revoked/<sha256>.any         that list; package identity knows what it says
//
// An origin has one more file for each channel, metadata/<channel>.bundle: all of the
// above that a device fetches for it, in one. Where a round trip takes long it is asked
// for together with the timestamp, and used if it is of that very timestamp ([Bundled]).
// Nothing depends on it: an origin without one, or with one that is stale or wrong, is
// asked file by file.
package release
