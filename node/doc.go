// Package node is one device of a site: it learns of a release, obtains it,
// installs it and serves it to the others.
//
// The way of a release through a node:
//
//	check     one device of the site asks the origin for the signed metadata, all at
//	          once if a round trip takes long; the others fetch it from that device
//	          unless it tells them that they have it; each verifies it for itself
//	          (trust). Of idle devices that reach the origin the one with the lowest
//	          ID looks for all (Config.Poll)
//	target    the manifest of this device's channel and type names artifacts,
//	          their chunk index and the patches that lead to them; beside it lie
//	          patches of earlier releases, of which chains can be made
//	plan      the device that holds the uplink lease picks what is cheapest to
//	          bring given every base that a member of the site holds: a patch, a
//	          chain of patches, or the chunks nobody has; the plan travels with its
//	          profile. It is made anew when no device has been able to go a way of it
//	          for some seconds, or others have brought much of what it is to bring
//	bring     it fetches that over the uplink and injects each blob into the swarm
//	          as it arrives
//	assemble  a device with the patch's base rebuilds the artifact and injects the
//	          chunks; all others receive chunks; both write straight into the
//	          release's staging directory. What a chain makes on its way lies in
//	          scratch files, for which the device must have room, two at most at a
//	          time. Where a patch or chain is slow to apply, of the devices with
//	          its base only the first do so (those at work already, then the fast
//	          ones, then by a hash of way and device); the others take over, one
//	          after the other, when nothing comes from those. A way that fails for
//	          want of room is gone again when there is room, and no patch is blamed
//	install   whole digest, stage, commit, health check; the old release stays in
//	          service until then and comes back if it fails
//	seed      what is installed is served from where it lies, by chunk
//
// State on disk is small: signed metadata, the manifests and chunk indexes of what
// is installed or under way, and the staging directory. After a crash everything
// else is found again by hashing, so nothing that had been verified is fetched
// twice but for the last of a file, of which at most 1 MiB is gathered in memory so
// that it is written in long pieces; and what a rebuild wrote before it was given up
// is compared, not written again. An installed release is the seed: there is no second
// copy. Files of a tree that are the same in the release in service and the next, and
// that nobody else can write to, have two names, and are not written again (Config.Links).
//
// Trust runs through all of it: what is signed is verified here whoever brought it; a
// peer is admitted with a certificate of this fleet and site that is valid and not
// revoked, and leaves when the list of revocations, which travels as metadata does,
// comes to name it. Its certificate says what it may be: a gateway, or an operator, who
// may ask each device how it is (Survey). Certificates are renewed by what the origin
// has for a device, brought by itself or by a neighbour. They end by the device's clock;
// by the newest signed time only where that clock is late for certain.
//
// Package node introduces delta, discovery and swarm to each other; none of them
// knows another.
package node
