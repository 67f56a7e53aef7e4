package swarm_test

import (
	"fmt"
	"os"
	"testing"

	"updraft/testnet/leaks"
)

// TestMain fails when goroutines of ours, or of a host that was closed, outlive the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := leaks.Left("updraft/", "libp2p"); left != "" && code == 0 {
		fmt.Fprintf(os.Stderr, "goroutines left:\n%s", left)
		code = 1
	}
	os.Exit(code)
}
