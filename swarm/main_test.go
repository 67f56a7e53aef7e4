package swarm_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails when goroutines of ours, or of a host that was closed, outlive the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := leftRunning(); left != "" && code == 0 {
		fmt.Fprintf(os.Stderr, "goroutines left:\n%s", left)
		code = 1
	}
	os.Exit(code)
}

// leftRunning returns the stacks of goroutines that do not end within some seconds: libp2p's own take a while.
func leftRunning() (left string) {
	buf := make([]byte, 16<<20)
	for range 500 {
		left = ""
		all := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
		for _, g := range all[1:] { // the first is this one
			if strings.Contains(g, "updraft/") || strings.Contains(g, "libp2p") {
				left += g + "\n\n"
			}
		}
		if left == "" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return left
}
