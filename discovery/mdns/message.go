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

	maxPacket  = 9000 // bytes, RFC 6762 section 17
	maxRecords = 1024 // records of one message that are looked at
	maxKnown   = 300  // known answers in one query: 28 B each, 8.4 kB
	minTTL     = time.Minute
	maxTTL     = 75 * time.Minute
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

// message is what a packet says about the service; either part may be empty.
type message struct {
	id            uint16
	query         bool // it asks for all instances of the service
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

// parseMessage reads a packet. ok is false when it is no DNS message or does not
// concern the service.
func parseMessage(b []byte) (m message, ok bool) {
	// The label is never compressed away, so most of a busy LAN's chatter ends here.
	if !bytes.Contains(b, []byte(serviceLabel)) {
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
	for _, q := range d.Question {
		if strings.EqualFold(q.Name, serviceName) && (q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY) {
			m.query = true
		}
	}
	if !m.query || len(d.Ns) > 0 {
		return message{}, false
	}
	for _, rr := range d.Answer[:min(len(d.Answer), maxRecords)] {
		if ptr, ok := rr.(*dns.PTR); ok && strings.EqualFold(ptr.Hdr.Name, serviceName) {
			if label, ok := instanceOf(ptr.Ptr); ok {
				m.known = append(m.known, known{label, time.Duration(ptr.Hdr.Ttl) * time.Second})
			}
		}
	}
	return m, true
}

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
