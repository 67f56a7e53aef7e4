package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"updraft/delta/release"
)

// maxAttempts is how often an interrupted trial goes on before the release counts
// as one that brings the device down.
const maxAttempts = 3

const (
	maxTrial = 64 << 10 // bytes of the trial file
	maxCause = 4 << 10  // bytes of a failure's text in it
)

// ErrInterrupted reports a release during whose trial the agent or the device
// went down again and again.
var ErrInterrupted = errors.New("install: the trial was interrupted too often")

// Trial is a release on probation: the link leads to it or is about to, and it is
// not known yet whether it stays. It rests in the data directory, so that a trial
// cut short by a crash, a power cut or a commit that reboots is brought to an end.
type Trial struct {
	Version   string `json:"version"`
	Previous  string `json:"previous,omitempty"` // version to go back to; empty: none
	Attempt   int    `json:"attempt"`            // counts from 1, one more after each interruption
	Committed bool   `json:"committed"`          // Commit has succeeded; Healthy is to come
	Failed    string `json:"failed,omitempty"`   // why it does not stay; Rollback is to come
}

// FailedError says that a release did not pass its trial. The previous one is in
// service again unless Rollback says otherwise.
type FailedError struct {
	Version, Previous string // Previous is empty if there was none
	Cause             error  // why the release does not stay
	Rollback          error  // what went wrong on the way back, or nil
}

func (e *FailedError) Error() string {
	s := fmt.Sprintf("install: release %s failed: %v; ", e.Version, e.Cause)
	switch {
	case e.Rollback != nil:
		return s + fmt.Sprintf("going back failed too: %v", e.Rollback)
	case e.Previous == "":
		return s + "none is in service"
	default:
		return s + e.Previous + " is in service again"
	}
}

func (e *FailedError) Unwrap() []error {
	if e.Rollback == nil {
		return []error{e.Cause}
	}
	return []error{e.Cause, e.Rollback}
}

// Activate puts the complete release r.Version into service on trial and brings
// the trial to its end:
//
//	note the trial; switch; Commit; note it; Healthy; forget the trial
//	on failure: note it; switch back; Rollback; forget the trial; *FailedError
//
// When ctx ends it returns early with an error that wraps ctx.Err() and leaves the
// trial as it stands; the same happens in a crash. At the next start Pending names
// the trial and Activate with the same version goes on with it: a step that had
// not ended runs again, with Release.Attempt one higher; after three attempts the
// release is given up. r.Dir and the fields after Manifest are filled in here.
// For the version in service it does nothing.
func (d *Dir) Activate(ctx context.Context, in Installer, r Release) error {
	if err := release.CheckVersion(r.Version); err != nil {
		return fmt.Errorf("%w: %w", ErrVersion, err)
	}
	t, ok := d.Pending()
	if !ok || t.Version != r.Version {
		cur, _ := d.Current()
		if cur == r.Version {
			return nil
		}
		if ok { // what is in service has not proved itself
			cur = t.Previous
		}
		t = Trial{Version: r.Version, Previous: cur}
	}
	t.Attempt++
	r.Dir, r.Attempt = d.Path(r.Version), t.Attempt
	if t.Previous != "" {
		r.Previous = d.Path(t.Previous)
	}
	if t.Failed != "" {
		return d.goBack(ctx, in, r, t, errors.New(t.Failed))
	}
	if t.Attempt > maxAttempts {
		return d.goBack(ctx, in, r, t, ErrInterrupted)
	}
	if err := d.note(t); err != nil {
		return err
	}
	d.step("noted")
	err := d.try(ctx, in, r, t)
	if err == nil {
		return d.forget()
	}
	if ctx.Err() != nil {
		return fmt.Errorf("install: trial of %s to go on later: %w", r.Version, errors.Join(ctx.Err(), err))
	}
	return d.goBack(ctx, in, r, t, err)
}

// try runs the steps that decide whether the release stays.
func (d *Dir) try(ctx context.Context, in Installer, r Release, t Trial) error {
	if err := d.Switch(t.Version); err != nil {
		return err
	}
	d.step("switched")
	if !t.Committed {
		if err := in.Commit(ctx, r); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		t.Committed = true
		if err := d.note(t); err != nil {
			return err
		}
		d.step("committed")
	}
	if err := in.Healthy(ctx, r); err != nil {
		return fmt.Errorf("health check: %w", err)
	}
	d.step("healthy")
	return nil
}

// goBack puts the previous release into service again.
func (d *Dir) goBack(ctx context.Context, in Installer, r Release, t Trial, cause error) error {
	failed := &FailedError{Version: t.Version, Previous: t.Previous, Cause: cause}
	// On a full disk this note cannot be made; going back matters more. A crash then
	// tries the release once more.
	t.Failed = strings.ToValidUTF8(cause.Error(), "?")
	t.Failed = strings.ToValidUTF8(t.Failed[:min(len(t.Failed), maxCause)], "")
	noted := d.note(t)
	d.step("failed")
	if t.Previous != "" {
		failed.Rollback = d.Switch(t.Previous)
	} else {
		failed.Rollback = d.Unlink()
	}
	d.step("switched back")
	if t.Attempt > 2*maxAttempts { // a Rollback that brings the device down each time
		failed.Rollback = errors.Join(failed.Rollback, ErrInterrupted)
	} else if err := in.Rollback(ctx, r); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("install: roll-back of %s to go on later: %w", r.Version, errors.Join(ctx.Err(), cause, noted))
		}
		failed.Rollback = errors.Join(failed.Rollback, fmt.Errorf("roll back: %w", err))
	}
	failed.Rollback = errors.Join(failed.Rollback, d.forget())
	return failed
}

// Pending returns the trial that was not brought to its end. A trial file that
// cannot be read counts as none: what the link leads to stays.
func (d *Dir) Pending() (Trial, bool) {
	f, err := os.Open(filepath.Join(d.data, trialFile))
	if err != nil {
		return Trial{}, false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTrial))
	if err != nil {
		return Trial{}, false
	}
	return parseTrial(b)
}

func parseTrial(b []byte) (Trial, bool) {
	var t Trial
	dec := json.NewDecoder(bytes.NewReader(b))
	if dec.Decode(&t) != nil || release.CheckVersion(t.Version) != nil || t.Attempt < 1 ||
		t.Previous != "" && release.CheckVersion(t.Previous) != nil || t.Previous == t.Version {
		return Trial{}, false
	}
	return t, true
}

// note makes the trial durable.
func (d *Dir) note(t Trial) error {
	b, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("install: note trial: %w", err)
	}
	if err := renameio.WriteFile(filepath.Join(d.data, trialFile), append(b, '\n'), 0o600, renameio.WithTempDir(d.data)); err != nil {
		return fmt.Errorf("install: note trial: %w", err)
	}
	return syncDir(d.data)
}

// forget ends the trial.
func (d *Dir) forget() error {
	if err := os.Remove(filepath.Join(d.data, trialFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("install: end trial: %w", err)
	}
	return syncDir(d.data)
}
