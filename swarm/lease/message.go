package lease

// UpGrain is the granularity, in seconds, with which times of being up are compared.
const UpGrain = 10

// How far a candidate gets to what is fetched over the uplink.
const (
	Reached    = 0 // it has had an answer
	Untried    = 1
	OutOfReach = 2 // the last time it had none; so does everything above
)

// Rank orders candidates. Better is: one that is not out of reach, a gateway, then the lower link class, then one that
// has had an answer, then longer up, then the lower ID.
type Rank struct {
	Gateway bool
	Link    uint8 // 0 normal, 1 metered, 2 backup; at most 15
	Reach   uint8 // Reached, Untried, OutOfReach; at most 15
	Up      int64 // seconds since the start of the program
}

// Better reports whether a candidate (r, id) comes before (s, sid).
func (r Rank) Better(id string, s Rank, sid string) bool {
	if out := r.Reach >= OutOfReach; out != (s.Reach >= OutOfReach) {
		return !out
	}
	switch {
	case r.Gateway != s.Gateway:
		return r.Gateway
	case r.Link != s.Link:
		return r.Link < s.Link
	case r.Reach != s.Reach:
		return r.Reach < s.Reach
	case r.Up/UpGrain != s.Up/UpGrain:
		return r.Up/UpGrain > s.Up/UpGrain
	}
	return id < sid
}

// Kind says what a message is.
type Kind uint8

// Kinds of messages.
const (
	Want      Kind = 1 + iota // I am a candidate; Rank
	Unwant                    // I am no longer
	Claim                     // I take the lease unless somebody objects; Epoch, Rank
	Heartbeat                 // I hold the lease; Epoch, Rank
	Object                    // you must not take it; Epoch is the highest I saw, Holder who I hear (empty: I am a better candidate)
	Yield                     // I held the lease of Epoch and give it up
	Consent                   // the claim of Epoch is good; what I have was told before
)

// Message is what members send each other. The sender is known from the connection.
type Message struct {
	Kind   Kind
	Epoch  uint64
	Rank   Rank
	Holder string
}

// Effect is one thing that a machine asks its driver to do, in order.
type Effect struct {
	Do  Do
	To  string  // for Send: a member, or "" for every member; for Flush: the member
	Msg Message // for Send
}

// Do names an effect.
type Do uint8

// Effects.
const (
	Send    Do = 1 + iota
	Granted    // this member holds the lease now; its epoch is Machine.Epoch
	Lost       // this member no longer holds it, and did not ask for that
	Flush      // tell To now what we have: it is about to fetch what nobody has
	Changed    // the answer of Machine.Holder changed
)
