package node_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"updraft/node"
	"updraft/node/report"
)

// healthHook answers for version 1.1.0 with the commands in body, else with yes.
func (s *site) healthHook(body string) func(*node.Config) {
	s.t.Helper()
	path := filepath.Join(s.dir, "health")
	text := "#!/bin/sh\n[ \"$UPDRAFT_VERSION\" = 1.1.0 ] || exit 0\n" + body + "\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		s.t.Fatal(err)
	}
	return func(c *node.Config) { c.Hooks.Health = path }
}

// look checks until the channel is known to name version.
func (a *agent) look(version string) {
	a.t.Helper()
	a.await("aware of "+version, func(st report.Status) bool {
		_, _ = a.node.Check(context.Background())
		return st.Target == version
	})
}

// installProblem waits until the old release is back and status says why.
func (a *agent) installProblem(part string) {
	a.t.Helper()
	a.await("back on 1.0.0", func(st report.Status) bool {
		for _, p := range st.Problems {
			if p.Code == "install" && strings.Contains(p.Text, part) {
				return st.Current == "1.0.0"
			}
		}
		return false
	})
}

func TestUnhealthyReleaseGoesBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	old := noise(1, 1<<20)
	s.publish("1.0.0", s.write("v1/app.bin", old))
	a := s.start(s.enroll(s.healthHook("echo the screen stays black; exit 1")))
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	s.publish("1.1.0", s.write("v2/app.bin", edited(old)))
	a.look("1.1.0")
	a.installProblem("the screen stays black")
	a.sees(old)
}

// A release that was not known to be healthy when the agent stopped is not kept
// for want of an answer.
func TestStopDuringHealthCheck(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	old := noise(2, 1<<20)
	s.publish("1.0.0", s.write("v1/app.bin", old))
	asked := filepath.Join(s.dir, "asked")
	cfg := s.enroll(s.healthHook("[ -e " + asked + " ] && { echo still black; exit 1; }; echo >" + asked + "; exec sleep 600"))
	a := s.start(cfg)
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	s.publish("1.1.0", s.write("v2/app.bin", edited(old)))
	a.look("1.1.0")
	a.await("in the health check", func(report.Status) bool {
		_, err := os.Stat(asked)
		return err == nil
	})
	a.end()
	a = s.start(cfg)
	a.installProblem("still black")
	a.sees(old)
}

// TestTrialOfWhatCannotServe: a release that the agent cannot open any more after it was stopped is judged all the
// same, goes back, and is not tried again.
func TestTrialOfWhatCannotServe(t *testing.T) {
	skipPublishing(t)
	t.Parallel()
	for name, spoil := range map[string]func(data string) error{
		"a file that it has changed itself": func(data string) error {
			return os.Truncate(filepath.Join(data, "current", "app.bin"), 1)
		},
		"lost index":    func(data string) error { return os.RemoveAll(filepath.Join(data, "state", "index")) },
		"lost manifest": func(data string) error { return os.Remove(filepath.Join(data, "state", "manifests", "1.1.0")) },
		"cut manifest":  func(data string) error { return os.Truncate(filepath.Join(data, "state", "manifests", "1.1.0"), 0) },
		"lost itself":   func(data string) error { return os.RemoveAll(filepath.Join(data, "releases", "1.1.0")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 0)
			old := noise(2, 64<<10)
			s.publish("1.0.0", s.write("v1/app.bin", old))
			asked := filepath.Join(s.dir, "asked")
			cfg := s.enroll(s.healthHook("[ -e " + asked + " ] && exit 1; echo >" + asked + "; exec sleep 600"))
			a := s.start(cfg)
			a.look("1.0.0")
			a.awaitVersion("1.0.0")
			m := s.publish("1.1.0", s.write("v2/app.bin", edited(old)))
			a.look("1.1.0")
			a.await("in the health check", func(report.Status) bool {
				_, err := os.Stat(asked)
				return err == nil
			})
			a.end()
			if err := spoil(a.data); err != nil {
				t.Fatal(err)
			}
			a = s.start(cfg)
			a.await("back", func(st report.Status) bool { return st.Current == "1.0.0" && len(st.Refused) == 1 })
			a.sees(old)
			if _, err := os.Stat(filepath.Join(a.data, "trial")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the trial is there: %v", err)
			}
			raw, err := m.Encode()
			if err != nil {
				t.Fatal(err)
			}
			refused, err := os.ReadFile(filepath.Join(a.data, "state", "refused.json"))
			if err != nil || !strings.Contains(string(refused), fmt.Sprintf("%x", sha256.Sum256(raw))) {
				t.Errorf("refused: %s, %v", refused, err)
			}
		})
	}
}
