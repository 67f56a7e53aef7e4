package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"updraft/delta/release"
)

// version may be set by the linker: -ldflags "-X main.version=1.2.3".
var version string

// build describes the program.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Format   int    `json:"manifest_format"`
}

func readBuild() build {
	b := build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Format: release.Format}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	if b.Version == "" {
		b.Version = "devel"
	}
	return b
}

func newVersion(u *ui) *cobra.Command {
	var sbom bool
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of the program",
		Example: "  updraft version\n  updraft version --sbom > updraft.cdx.json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			b := readBuild()
			if sbom {
				return writeSBOM(u.out, b)
			}
			return u.result(b, func(w io.Writer) {
				fmt.Fprintf(w, "updraft %s (%s, %s, manifest format %d)\n", b.Version, b.Go, b.Platform, b.Format)
				if b.Revision != "" {
					fmt.Fprintf(w, "revision %s %s\n", b.Revision, b.Time)
				}
			})
		},
	}
	c.Flags().BoolVar(&sbom, "sbom", false, "print what the program is made of, as CycloneDX JSON")
	return c
}
