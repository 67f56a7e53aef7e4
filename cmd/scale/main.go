// Command scale shows how a site grows: it plays sites of many devices in virtual time, with the swarm that the agent
// uses, and prints a table, JSON or a drawing of what each cost. It is a program of its own because virtual time comes
// from package testing.
//
//	go run ./cmd/scale --devices 50,200,500 --svg scale.svg
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"updraft/testnet/scale"
)

func main() {
	args := os.Args[1:]
	os.Args = os.Args[:1] // package testing has no business with them
	testing.Main(func(_, _ string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "scale", F: func(t *testing.T) {
		if err := run(t, args, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, "scale:", err)
			os.Exit(1)
		}
		os.Exit(0) // or package testing would have the last word
	}}}, nil, nil)
}

// run does what args say. Sites are played in bubbles of virtual time, for which t is needed.
func run(t *testing.T, args []string, stdout, stderr io.Writer) error {
	f := flag.NewFlagSet("scale", flag.ContinueOnError)
	f.SetOutput(stderr)
	devices := f.String("devices", "8,24,50,100,200", "how many devices the sites have")
	blobs := f.Int("blobs", 96, "blobs of the release, 64 KiB each")
	peers := f.Int("peers", 0, "members that a device keeps at most (default: as the agent)")
	kill := f.Int("kill", 0, "how many of the devices that download are killed")
	svg := f.String("svg", "", "write a drawing to this file")
	asJSON := f.Bool("json", false, "print JSON instead of a table")
	if err := f.Parse(args); err != nil {
		return err
	}
	var points []scale.Point
	for s := range strings.SplitSeq(*devices, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 2 {
			return fmt.Errorf("%q devices", s)
		}
		fmt.Fprintln(stderr, "Playing", n, "devices.")
		p, err := play(t, scale.Site{Devices: n, Blobs: *blobs, Peers: *peers, Kill: *kill})
		if err != nil {
			return err
		}
		points = append(points, p)
	}
	if *svg != "" {
		if err := draw(*svg, points); err != nil {
			return err
		}
	}
	if !*asJSON {
		return scale.Table(stdout, points)
	}
	e := json.NewEncoder(stdout)
	e.SetIndent("", "  ")
	return e.Encode(points)
}

func play(t *testing.T, s scale.Site) (p scale.Point, err error) {
	synctest.Test(t, func(*testing.T) { p, err = scale.Play(s) })
	if err == nil && p.Done != p.Devices-p.Killed {
		err = fmt.Errorf("%d of %d devices have the release", p.Done, p.Devices-p.Killed)
	}
	return p, err
}

func draw(path string, points []scale.Point) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return scale.SVG(f, points)
}
