package report_test

import (
	"errors"
	"reflect"
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

func TestPlan(t *testing.T) {
	d, data := sample(), t.TempDir()
	d.plan = report.Plan{Version: "2.0.0", Bytes: 7, Artifacts: []report.PlanArtifact{{Name: "app", Size: 9, Bytes: 7,
		Ways: []report.PlanWay{{Kind: "patch", Base: "1.0.0", Profile: "dense", Work: 5, Holders: []string{"till-7"}, Bytes: 7, Possible: true, Why: "the smallest"}}}}}
	serve(t, data, d)
	c := report.Dial(data)
	if p, err := c.Plan(t.Context()); err != nil || !reflect.DeepEqual(p, d.plan) {
		t.Errorf("%+v, %v", p, err)
	}
	d.retry = errors.New("nothing is known")
	if _, err := c.Plan(t.Context()); err == nil || err.Error() != "nothing is known" {
		t.Error(err)
	}
}
