package node_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"

	"updraft/testnet/leaks"
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
	if left := leaks.Left("updraft/", "libp2p"); left != "" && code == 0 {
		fmt.Fprintf(os.Stderr, "goroutines left:\n%s", left)
		code = 1
	}
	os.Exit(code)
}
