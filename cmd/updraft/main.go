// Command updraft brings software releases to the devices of a site over one scarce
// uplink: the site downloads the smallest delta once, and the LAN does the rest.
//
// It is one static program for all roles: the publisher (init, publish, serve,
// enroll), the device and the gateway (agent, check, status, peers, verify, fetch),
// the tools (delta) and the rehearsal (demo, testnet).
//
// main is thin: run takes everything a process has as arguments, so that tests run
// the whole program. What a user relies on: results go to standard output, all else
// to standard error; --json prints one JSON value and nothing else; terminal
// control codes are written only to a terminal; the exit code says what kind of
// failure it was (see "updraft help exit-codes").
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends what does not listen
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run executes one command line and returns the exit code. It returns soon after
// ctx ends, with everything it started ended.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	u := &ui{in: stdin, out: stdout, err: stderr, tty: terminal(stderr)}
	root := newRoot(u)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	u.command = cmd.CommandPath()
	u.finish()
	return u.exit(ctx, err)
}
