package mdns

import "time"

// OnlyTold has the source look at the interfaces when the kernel tells of a change, and
// not now and then.
func (s *Source) OnlyTold() { s.watch = time.Hour }
