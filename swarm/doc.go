// Package swarm lets the devices of one site exchange blobs so that each blob crosses the uplink once.
//
// A [Swarm] keeps one admitted connection to each member of the site, knows what every member has of every open
// [Object], spreads what one device brought from outside, fetches what this device lacks, and says which one device
// may use the uplink ([Swarm.Acquire]). It knows no files and no releases: an object is a table of digests, and what
// a device holds is behind [Blobs].
//
// How a blob spreads: the device that brought it (its injector, [Swarm.Inject]) sends it to one receiver, the relay,
// with few bytes outstanding at each; the relay passes it on to every receiver that lacks it. So a blob is two hops
// from everybody, and nobody sends much more than it receives. What somebody missed, because it came late or because a
// relay died, it asks for: rarest first, of several members at once. What is still to be sent is a bitmap for each
// member and object; data is read when it is about to be written. A slow member therefore costs bitmaps only.
//
// Blobs travel compressed where that pays: in the form in which they came, or as zstd frames made when they are sent.
//
// Guaranteed: a blob reaches [Blobs.Put] only after its digest was checked, and once; a member that sent a wrong one
// is dropped and shunned; memory is bounded whatever members do; nothing but the hello is answered before
// [Config.Admit] has agreed. PROTOCOL.md describes the messages.
//
// All methods are safe for concurrent use. No callback is called with a lock held.
package swarm
