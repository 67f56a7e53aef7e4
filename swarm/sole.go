package swarm

// Sole returns the bytes of blobs that members want and that only this device has: of the open object lead, and of those
// that follow it. Who receives lead is about to want the others, whether it has opened them yet or not. What was sent
// counts as long as its receiver has not said that it has it.
func (s *Swarm) Sole(lead [32]byte, others ...[32]byte) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.soleLocked(lead, lead)
	for _, id := range others {
		n += s.soleLocked(id, lead)
	}
	return n
}

func (s *Swarm) soleLocked(id, lead [32]byte) (n int64) {
	obj := s.objects[id]
	if obj == nil {
		return 0
	}
	wanted := false
	for _, h := range obj.shares {
		if h.known {
			wanted = wanted || h.receive && h.n < len(obj.Sums)
		} else if l := h.m.shares[lead]; l != nil {
			wanted = wanted || l.receive
		}
	}
	if !wanted {
		return 0
	}
	for i, size := range obj.Sizes {
		if obj.avail[i] == 0 && obj.have.has(i) { // so who wants any wants this one
			n += int64(size)
		}
	}
	return n
}
