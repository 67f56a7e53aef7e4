// Package mdns finds the devices of a site by multicast DNS and DNS-SD, as the
// service _updraft._tcp in the domain local.
//
// # What is on the network
//
// A device registers one instance, named by a nonce that is drawn anew for each
// registration, with SRV and A or AAAA (its first address) and TXT:
//
//	n=<nonce>   13 characters, the instance's name too: base32 in the alphabet 0…9a…v
//	            (so that names are ordered as what they stand for) of 44 bits of the
//	            registration's number and 20 random bits
//	t=<tag>     26 characters: base32(HMAC-SHA256(site key, nonce ++ peer ID ++
//	            each address as it stands in the record, behind a byte with its length))
//	p=<peer ID>
//	a=<address> a multiaddr without its leading slash (ip4/10.0.0.1/tcp/4001,
//	            ip6/fd00::1/udp/4001/quic-v1), up to 8 times
//
// The number is the time in milliseconds since 1970 as the device has it, or the next
// after the greatest that it knows of a registration of its own, if that is more.
//
// Devices read TXT alone; the rest is for other browsers. The host's name, the
// device's name, and what it runs stay unsaid. Entries whose tag was made with
// another key, or for another peer or other addresses, are counted and not looked
// at. An entry is a hint: who can copy packets can repeat them, so the peer behind
// an address is believed only after the handshake. Names from before they held a number
// are compared like others: which of a device's is later is then left to chance.
//
// # How it works
//
// Two sockets, one of each family, listen to the group all the time, whoever asked, and
// send all that is said; messages are read and made by miekg/dns. What was not sent to the
// group, or not from its port, is not looked at (RFC 6762, 11). A session announces the
// registration at once and again after a second, on each interface and family, and says
// goodbye in the end. It does not probe: nobody else draws the same name (8.1).
//
// Queries for the service, for the instance's SRV or TXT, for the host's address and for
// the services that there are (RFC 6763, 9) are answered by one packet, on the interface
// and the family on which they came in; also on the other family if the interface has no
// address of the first. The answer comes after 20 to 120 ms, at random, where others have
// answers too, and always to the group, never to one address. An interface and family gets
// one packet a second (RFC 6762, 6), whatever is asked and however often: what is asked
// meanwhile is answered together when the second is over. So who speaks on a LAN of n
// devices can have them send n × 300 B a second on it over either family, or n × 600 B
// with 8 addresses each, not more, and nothing at all to elsewhere.
//
// Queries of our own go out
//
//   - three within the first 4 s after the start and after each change of the
//     interfaces or addresses, which are compared when the kernel tells of a change
//     and every 5 s: sockets and registration are then made anew, under a new name,
//     but no sooner than after 1 s, and where addresses alone change, as they do at the
//     word of anybody who advertises a router, after 2, 4 … 60 s the next times;
//   - every 8 to 60 s while nobody is known;
//   - otherwise every 120 to 300 s, at random (Config.Interval; × n/100 for more
//     than 100 devices). Queries list all entries that have half of their life
//     left (RFC 6762, 7.1), and those stay silent. A query of somebody else that
//     lists nothing that we lack counts as ours; one that does makes us ask soon.
//
// An entry lives for 3200 s (the TTL of its records) after it was last heard, so
// it is asked for again from 1600 s on, ten times or so; 3 s after its goodbye;
// and until the same peer announces an instance with a greater name, which replaces it
// at once: that is how a device that was killed and comes back with another port is
// followed. An instance with a lesser name is either said again by somebody, or of a
// device whose clock went back. It is kept behind the latest, until another such is
// heard, and each of the two gets half of the 8 addresses, or what the other leaves. A
// latest one that has said goodbye is remembered for the rest of its life in case a
// lesser one comes up, since anybody can say goodbye. A device that hears a greater name
// of its own than the present one registers anew above it, every 10 min at most: so who
// has no clock may be kept from being found by what it announced before, but not for
// long, as what others hear it hears too. Queries go out over IPv4 where there is an IPv4
// address, else over IPv6; over both the first three, and those while nobody is known, while
// others know a device that we do not, or while one has a quarter of its life left, or less,
// and was not heard again: it, or we, may be heard over one family only. Hosts without IPv6
// are served over IPv4 alone.
//
// All of this takes place on loopback too, and there alone when the device listens
// on loopback only, so that several agents on a machine find each other without a
// network, or on one that drops multicast. Loopback addresses are announced only
// there.
//
// # What it costs
//
// A query takes 80 B and 28 B per entry listed, an answer with one address about
// 300 B over IPv4 and 320 B over IPv6, Ethernet included, and each further address
// 25 to 45 B. With n devices on a LAN each gets and sends, per day,
//
//	queries  86 400 s / 125 s × (80 + 28 n) B   about one per shortest interval
//	answers  86 400 s / 1660 s × n × 300 B      each device when its life is half over
//
// that is 1.8 MB with 50 devices, 5 MB with 200 (where rounds take twice as long),
// of the 10 MB that an idle site may use. Devices that have IPv6 alone ask on their own,
// and are answered on their own: with such on the LAN, answers cost up to twice as much.
// Measured with 50 devices in network namespaces over 28 minutes (TestCrowd): 2.7 MB,
// all traffic of the interface counted. When 60 devices start at the same moment, the
// first 10 s cost each of them 0.2 MB, and all know all after 2.5 to 5 s.
//
// # What is guaranteed
//
// Run never fails and never spins: a host without multicast is reported (Config.
// Report) and looked at again when an interface changes and every 5 s. Records,
// addresses, entries (of the site and of others) and names heard of are bounded; when
// there are too many devices, the one heard longest ago of those whose first address most
// of them have makes room; so are the questions of a message that are looked at (64), and
// what is answered. Run returns after all its goroutines have ended.
package mdns
