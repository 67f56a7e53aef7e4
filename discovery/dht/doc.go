// Package dht finds the devices of a site through a private Kademlia, for sites
// of several routed segments, which multicast does not cross.
//
// Each device runs a full node under the protocol prefix /updraft (it speaks
// /updraft/kad/1.0.0, and nothing of the public network). It reaches the others
// first through a bootstrap list and through peers remembered or found by other
// sources, and then
//
//	announces  itself as a provider of the site's key, again every 4 hours and
//	           when its addresses change
//	searches   providers of that key: at once, after 5 s, 30 s, 2 and 10 minutes,
//	           then every 2 hours (each time up to a half longer, at random)
//
// The site's key is HMAC-SHA256(site key, "dht"), so who does not have the site
// key cannot ask for the site. What a device holds is not announced; devices tell
// each other when they meet.
//
// Values are disabled: nothing but provider records is stored, each for 12 hours.
// What is found is a hint (see package discovery): records outlive the devices
// they name, and liveness comes from connecting. Searching every two hours is enough
// because a device that appears searches at once and connects to all it finds.
//
// What an idle site costs, as measured in TestTraffic (application bytes): among
// 50 nodes a search brings 66 kB and an announcement 31 kB to the device that
// makes it, and as much leaves each device for the searches of the others. At
// these intervals that is about 1.3 MB per device and day for searches, 0.3 MB
// for announcements, and 1 to 2 MB for refreshing routing tables. Among 20 nodes
// a search brings 45 kB, among 10 it brings 7 kB.
//
// With Config.Admitted set, the DHT makes no connection: a peer is admitted only
// on one that the swarm has made, so each that the DHT wants to speak with is told
// of by an event that says so (Wanted), and waited for, for 10 s at most. Bootstrap
// nodes are told of with each search, whoever else is known, since neighbours that
// multicast finds know nothing of other segments; when one of them is admitted, or
// any node after all had gone, this device announces itself and searches as at the
// start. Where that goes on, it announces itself and searches once 10, 20, 40, 80 and
// then 120 minutes after the last time. Streams of peers that the fleet has not
// admitted wait up to 5 s for their admission and are reset without it, and such
// peers never enter the routing table.
package dht
