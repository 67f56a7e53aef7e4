package leaks_test

import (
	"strings"
	"testing"

	"updraft/testnet/leaks"
)

func lingers(end <-chan struct{}) { <-end }

func TestLeft(t *testing.T) {
	const name = "leaks_test.lingers"
	end := make(chan struct{})
	go lingers(end)
	if got := leaks.Left(name); !strings.Contains(got, name) || strings.Contains(got, "leaks.Left(") {
		t.Errorf("one that does not end: %q", got)
	}
	close(end)
	if got := leaks.Left(name); got != "" {
		t.Errorf("one that has ended: %q", got)
	}
	if got := leaks.Left("nobody.is.called.so"); got != "" {
		t.Errorf("another name: %q", got)
	}
}
