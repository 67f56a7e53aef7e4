//go:build race

package patch_test

// underRace says that the race detector is in: work on one goroutine shows it
// nothing and takes twenty times as long.
const underRace = true
