package report_test

import (
	"errors"
	"testing"

	"updraft/node/report"
)

func TestRetry(t *testing.T) {
	d, data := sample(), t.TempDir()
	serve(t, data, d)
	c := report.Dial(data)
	if err := c.Retry(t.Context()); err != nil {
		t.Error(err)
	}
	d.retry = errors.New("the disk is full")
	if err := c.Retry(t.Context()); err == nil || err.Error() != "the disk is full" {
		t.Error(err)
	}
}
