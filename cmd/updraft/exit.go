package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"updraft/delta"
	"updraft/delta/patch"
	"updraft/delta/release"
	"updraft/delta/tree"
	"updraft/node"
	"updraft/node/fleet"
	"updraft/node/identity"
	"updraft/node/install"
	"updraft/node/report"
	"updraft/swarm/origin"
	"updraft/testnet"
)

// Exit codes. They are part of the program's contract: scripts branch on them.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitVerify      = 4
	exitUnreachable = 5
	exitInterrupted = 130
)

const exitHelp = `Exit codes of updraft:

    0  done (agent and serve: also after SIGTERM or SIGINT)
    1  any other error
    2  wrong usage: an unknown command, flag or argument, a bad configuration
    3  not found: no such file, no such release, nothing on the channel yet
    4  verification failed: bytes, a signature or a base are not what they should be
    5  unreachable: no agent answers, or the origin does not
  130  interrupted by SIGINT or SIGTERM before the work was done

With --json an error is printed as {"error": text, "code": number, "hint": text}.`

// usageError is an error of the command line itself.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// hinted is an error with a remark on what to do.
type hinted struct {
	err  error
	hint string
}

func (e hinted) Error() string { return e.err.Error() }
func (e hinted) Unwrap() error { return e.err }

// errNotConverged ends a demo or a testnet whose devices did not all come to the
// release.
var errNotConverged = errors.New("not every device has the release in service")

// errMismatch ends a verify that found something else than was published.
var errMismatch = errors.New("not what was published")

// kinds says which exit code an error has, and what helps. The first match counts, but for
// delta.ErrInput where readFault says that what it wraps does.
var kinds = []struct {
	is   error
	code int
	hint string
}{
	{delta.ErrInput, exitUsage, ""}, // before what it wraps: the origin is not to blame
	{report.ErrNotRunning, exitUnreachable, "start the agent with this --data directory, or name the right one"},
	{release.ErrNoRelease, exitNotFound, "publish a release on that channel and for that type first"},
	{release.ErrSignature, exitVerify, "the metadata is not signed by this fleet: look what serves it"},
	{release.ErrExpired, exitVerify, "check the clock; if it is right, publish again to renew the metadata"},
	{release.ErrRollback, exitVerify, "the origin is older than what was seen before: restore it from the publisher"},
	{release.ErrMixAndMatch, exitVerify, "the origin was copied in part: copy it as a whole, timestamp.json last"},
	{release.ErrCorrupt, exitVerify, "copy the origin from the publisher again"},
	{release.ErrManifest, exitVerify, "copy the origin from the publisher again"},
	{release.ErrNoKey, exitError, "bring the key back into the fleet's keys directory for this step"},
	{release.ErrSealed, exitError, "give the right passphrase in UPDRAFT_PASSPHRASE or UPDRAFT_PASSPHRASE_FILE, or run it on a terminal"},
	{release.ErrRoot, exitError, "export the root again: another one was published since"},
	{release.ErrQuorum, exitUsage, "at least 1 key must sign, and at most as many as there are"},
	{release.ErrSequence, exitUsage, "give a version that is newer than those of the channel"},
	{release.ErrName, exitUsage, "use letters, digits, dot, dash and underscore"},
	{fleet.ErrOptions, exitUsage, ""},
	{delta.ErrCorrupt, exitVerify, "copy the origin from the publisher again"},
	{patch.ErrBase, exitVerify, "use the file that the patch was made from; delta info shows its digest"},
	{patch.ErrCorrupt, exitVerify, "the patch is damaged or no patch: make it again or copy it again"},
	{patch.ErrVersion, exitError, "use a newer updraft"},
	{tree.ErrListing, exitVerify, "the patch or release is damaged: make it again or copy it again"},
	{tree.ErrChanged, exitVerify, "the files changed while they were read: try again when nothing writes there"},
	{errMismatch, exitVerify, "an origin: copy it from the publisher again; a device: remove releases/VERSION in its data directory and start the agent again, which brings it anew"},
	{errBench, exitVerify, "the table says which, and how"},
	{fleet.ErrNotFleet, exitNotFound, "name the directory that updraft init made"},
	{fleet.ErrSecrets, exitUsage, "of a fleet, only its directory origin is for others"},
	{fleet.ErrNotEmpty, exitError, "name a directory that is empty or does not exist"},
	{fleet.ErrBusy, exitError, "wait until the other publish has ended"},
	{fleet.ErrUnknown, exitNotFound, "the names of devices are those of the files in the fleet's devices directory"},
	{fleet.ErrReplaced, exitError, "there is nothing to undo: the device is admitted with its new certificate"},
	{fleet.ErrTokenUnknown, exitNotFound, "updraft token list shows those that there are, updraft token create makes one"},
	{fleet.ErrTokenExpired, exitError, "make a new token: updraft token create"},
	{fleet.ErrTokenUsed, exitError, "make a new token: updraft token create"},
	{fleet.ErrTokenType, exitError, "make a token for that type, or one for any"},
	{fleet.ErrOtherName, exitError, "make a new key with updraft enroll request, or, if this one was in no other hands, give it a new certificate under the name that it has: --name, --replace"},
	{fleet.ErrExists, exitError, "choose another version or name; a certificate is renewed with --replace"},
	{identity.ErrPermissions, exitError, "chmod 600 the file: who can read it is the device"},
	{identity.ErrKey, exitError, "use the key that belongs to the request"},
	{identity.ErrRevoked, exitError, "enroll it anew (updraft enroll --replace), or take it back in with updraft revoke --undo if its key was in no other hands"},
	{identity.ErrExpired, exitVerify, "enroll the device again"},
	{identity.ErrMalformed, exitVerify, "enroll the device again"},
	{install.ErrNoSpace, exitError, "free space and try again"},
	{origin.ErrUnreachable, exitUnreachable, "check the address of the origin and the network"},
	{origin.ErrNotFound, exitNotFound, "check that the origin's directory was copied as a whole"},
	{node.ErrConfig, exitUsage, "see updraft agent --help"},
	{node.ErrOperator, exitError, "enroll it with --role operator"},
	{testnet.ErrUnsupported, exitError, "run it as root, or without --netns"},
	{node.ErrInUse, exitError, "stop the other agent, or give each agent its own --data"},
	{node.ErrListen, exitError, "another program may listen there, or no interface has that address: choose another --listen address; port 0 takes a free one"},
	{syscall.EADDRINUSE, exitError, "another program listens there: choose another address"},
	{syscall.EADDRNOTAVAIL, exitError, "no interface of this machine has that address: choose one that ip address shows, or :PORT for all"},
	{syscall.ENOSPC, exitError, "free space and try again"},
	{syscall.EROFS, exitError, "nothing can be written there: mount it for writing, or name another directory"},
	{syscall.ENOTDIR, exitError, "a part of that path is a file: name another directory"},
	{fs.ErrPermission, exitError, "check the owner and mode, or run as the user who owns it"},
	{fs.ErrNotExist, exitNotFound, "check the path"},
}

// agentCodes are the exit codes of what an agent could not do.
var agentCodes = map[string]int{
	report.KindOther:       exitError,
	report.KindUnreachable: exitUnreachable,
	report.KindNotFound:    exitNotFound,
	report.KindUntrusted:   exitVerify,
}

// classify returns the exit code of err and a hint, which may be empty.
func classify(ctx context.Context, err error) (int, string) {
	var h hinted
	var ue usageError
	hint := ""
	if errors.As(err, &h) {
		hint = h.hint
	}
	pick := func(s string) string {
		if hint != "" {
			return hint
		}
		return s
	}
	switch {
	case err == nil:
		return exitOK, ""
	case errors.As(err, &ue):
		return exitUsage, pick("")
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted, pick("")
	}
	var f *report.Failure
	if errors.As(err, &f) {
		code, ok := agentCodes[f.Kind]
		if !ok {
			code = exitError // of a later agent
		}
		return code, pick(f.Hint)
	}
	fault := readFault(err)
	for _, k := range kinds {
		if errors.Is(err, k.is) && !(fault && errors.Is(k.is, delta.ErrInput)) {
			return k.code, pick(k.hint)
		}
	}
	return exitError, hint
}

// readFault reports whether err is of a file that could not be read, or that changed
// meanwhile: naming it was no wrong usage.
func readFault(err error) bool {
	var pe *fs.PathError
	return errors.As(err, &pe) || errors.Is(err, tree.ErrChanged)
}

// exit reports err and returns the exit code.
func (u *ui) exit(ctx context.Context, err error) int {
	code, hint := classify(ctx, err)
	if code == exitOK {
		return code
	}
	text := err.Error()
	switch {
	case code == exitInterrupted:
		text = "interrupted"
	case code == exitUsage && hint == "":
		hint = "see " + u.command + " --help"
	}
	// A command that has printed its result has said what failed in it.
	if u.json && !u.printed {
		_ = json.NewEncoder(u.out).Encode(map[string]any{"error": text, "code": code, "hint": hint}) // said below as well
	}
	fmt.Fprintf(plainWriter{u.err}, "updraft: %s\n", text)
	if hint != "" {
		fmt.Fprintf(u.err, "  what to do: %s\n", hint)
	}
	return code
}
