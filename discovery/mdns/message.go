package mdns

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	serviceLabel = "_updraft"
	service      = serviceLabel + "._tcp"
	domain       = "local"
	serviceName  = service + "." + domain + "."
	typesLabel   = "_services"
	typesName    = typesLabel + "._dns-sd._udp." + domain + "."

	maxPacket     = 9000    // bytes, RFC 6762 section 17
	maxQuestions  = 64      // questions of one message that are looked at
	maxRecords    = 1024    // records of one message that are looked at
	maxKnown      = 300     // known answers in one query: 28 B each, 8.4 kB
	unicastWanted = 1 << 15 // in the class of a question (RFC 6762, 5.4)
	minTTL        = time.Minute
	maxTTL        = 75 * time.Minute
)

// wants is a set of what a query asks of this device.
type wants uint8

const (
	wantsService  wants = 1 << iota // PTR of the service: all instances
	wantsTypes                      // PTR of the services that there are (RFC 6763, 9)
	wantsInstance                   // SRV or TXT of our instance
	wantsA                          // of our host name
	wantsAAAA

	wantsShared = wantsService | wantsTypes // others have answers too
)

// known is one entry of a query's list of known answers.
type known struct {
	instance string // label, without the service name
	ttl      time.Duration
}

// announcement is one instance of the service as a response describes it.
type announcement struct {
	instance string
	ttl      time.Duration // zero: goodbye
	text     []string
}

// message is what a packet says about the service, or asks of this device; any part may
// be empty.
type message struct {
	id            uint16
	query         bool  // it asks for all instances of the service
	wants         wants // what of it we are to answer
	known         []known
	announcements []announcement
}

// question builds the query for all instances, with the list of those that need
// not answer (RFC 6762, 7.1). Responders stay silent if the stated remaining
// life is at least half of theirs. The ID lets us tell our own queries when they
// come back; responders do not look at it.
func question(id uint16, list []known) ([]byte, error) {
	m := new(dns.Msg)
	m.SetQuestion(serviceName, dns.TypePTR)
	m.Id = id
	m.RecursionDesired = false
	m.Compress = true
	for _, k := range list[:min(len(list), maxKnown)] {
		m.Answer = append(m.Answer, &dns.PTR{
			Hdr: dns.RR_Header{Name: serviceName, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: uint32(k.ttl / time.Second)},
			Ptr: k.instance + "." + serviceName,
		})
	}
	return m.Pack()
}

// parseMessage reads a packet that came to the device whose instance is called own; empty:
// it has none. ok is false when it is no DNS message or concerns neither the service nor
// the device.
func parseMessage(b []byte, own string) (m message, ok bool) {
	// Labels are never compressed away, so most of a busy LAN's chatter ends here.
	says := func(label string) bool { return bytes.Contains(b, []byte(label)) }
	if !says(serviceLabel) && !says(typesLabel) && (own == "" || !says(own)) {
		return message{}, false
	}
	var d dns.Msg
	if len(b) > maxPacket || d.Unpack(b) != nil || d.Opcode != dns.OpcodeQuery || d.Rcode != dns.RcodeSuccess {
		return message{}, false
	}
	m.id = d.Id
	if d.Response {
		m.announcements = announcements(&d)
		return m, len(m.announcements) > 0
	}
	for _, q := range d.Question[:min(len(d.Question), maxQuestions)] {
		m.wants |= asks(q, own)
	}
	if m.wants == 0 || len(d.Ns) > 0 {
		return message{}, false
	}
	m.query = m.wants&wantsService != 0
	for _, rr := range d.Answer[:min(len(d.Answer), maxRecords)] {
		ptr, ok := rr.(*dns.PTR)
		if !ok {
			continue
		}
		// Who has an answer that will live for at least half of its life needs no other (RFC 6762, 7.1).
		lasts := ptr.Hdr.Ttl >= recordTTL/2
		switch {
		case strings.EqualFold(ptr.Hdr.Name, typesName):
			if lasts && strings.EqualFold(ptr.Ptr, serviceName) {
				m.wants &^= wantsTypes
			}
		case m.query && strings.EqualFold(ptr.Hdr.Name, serviceName):
			if label, ok := instanceOf(ptr.Ptr); ok {
				m.known = append(m.known, known{label, time.Duration(ptr.Hdr.Ttl) * time.Second})
				if lasts && label == own {
					m.wants &^= wantsService
				}
			}
		}
	}
	return m, m.query || m.wants != 0
}

// asks returns what one question asks of the device. The bit that wishes for an answer
// by unicast is not looked at: all get the same, by multicast (RFC 6762, 5.4).
func asks(q dns.Question, own string) (w wants) {
	if class := q.Qclass &^ unicastWanted; class != dns.ClassINET && class != dns.ClassANY {
		return 0
	}
	is := func(name string, typ uint16) bool {
		return (q.Qtype == typ || q.Qtype == dns.TypeANY) && strings.EqualFold(q.Name, name)
	}
	if is(serviceName, dns.TypePTR) {
		w |= wantsService
	}
	if is(typesName, dns.TypePTR) {
		w |= wantsTypes
	}
	if own == "" {
		return w
	}
	if name := own + "." + serviceName; is(name, dns.TypeSRV) || is(name, dns.TypeTXT) {
		w |= wantsInstance
	}
	host := hostName(own)
	if is(host, dns.TypeA) {
		w |= wantsA
	}
	if is(host, dns.TypeAAAA) {
		w |= wantsAAAA
	}
	return w
}

// hostName is the host of an instance: it has the same label.
func hostName(instance string) string { return instance + "." + domain + "." }

// announcements gathers the instances that a response describes: their TXT says
// all that a device needs.
func announcements(d *dns.Msg) []announcement {
	records := slices.Concat(d.Answer, d.Extra)
	records = records[:min(len(records), maxRecords)]
	var out []announcement
	seen := make(map[string]bool)
	for _, rr := range records {
		txt, ok := rr.(*dns.TXT)
		if !ok || len(txt.Txt) == 0 {
			continue
		}
		label, ok := instanceOf(txt.Hdr.Name)
		if !ok || seen[label] {
			continue
		}
		seen[label] = true
		out = append(out, announcement{instance: label, ttl: clampTTL(txt.Hdr.Ttl), text: txt.Txt})
	}
	return out
}

// clampTTL keeps a stated life within bounds: a device that claims days would
// linger, one that claims a second would flap.
func clampTTL(seconds uint32) time.Duration {
	if seconds == 0 {
		return 0
	}
	return min(max(time.Duration(seconds)*time.Second, minTTL), maxTTL)
}

// instanceOf returns the instance label of a service instance name, if it is one
// that a device may have: letters and digits only, so that no escapes are needed.
func instanceOf(name string) (string, bool) {
	label, ok := strings.CutSuffix(strings.ToLower(name), "."+serviceName)
	if !ok || label == "" || len(label) > maxNonce {
		return "", false
	}
	for _, c := range []byte(label) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return "", false
		}
	}
	return label, true
}
