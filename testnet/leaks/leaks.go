// Package leaks finds goroutines that outlive what started them, for tests.
package leaks

import (
	"runtime"
	"slices"
	"strings"
	"time"
)

// patience is how long goroutines may take to end: libp2p's own take a while.
const patience = 5 * time.Second

// Left returns the stacks of the goroutines, but for the caller's, in which one of the
// names occurs and which have not ended within some seconds; empty: there are none.
func Left(names ...string) (stacks string) {
	buf := make([]byte, 16<<20)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		stacks = ""
		all := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
		for _, g := range all[1:] { // the first is the caller's
			if slices.ContainsFunc(names, func(name string) bool { return strings.Contains(g, name) }) {
				stacks += g + "\n\n"
			}
		}
		if stacks == "" || time.Now().After(end) {
			return stacks
		}
	}
}
