package node_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain runs more tests at once than there are processors, unless told how many: sites wait most of the time. It fails
// when goroutines of ours, or of an agent's host, outlive the tests.
func TestMain(m *testing.M) {
	flag.Parse()
	told := false
	flag.Visit(func(f *flag.Flag) { told = told || f.Name == "test.parallel" })
	if !told {
		if err := flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0))); err != nil {
			panic(err)
		}
	}
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
