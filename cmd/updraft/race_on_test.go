//go:build race

package main

// underRace says that the race detector is in: with it nine processes on two
// cores are too slow for what a rollout is measured by.
const underRace = true
