package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
)

// The part of CycloneDX 1.5 (ECMA-424's forerunner) that says what a program is
// made of.
type (
	bom struct {
		Format     string         `json:"bomFormat"`
		Spec       string         `json:"specVersion"`
		Version    int            `json:"version"`
		Metadata   bomMetadata    `json:"metadata"`
		Components []bomComponent `json:"components"`
	}
	bomMetadata struct {
		Component bomComponent `json:"component"`
	}
	bomComponent struct {
		Type    string    `json:"type"`
		Ref     string    `json:"bom-ref"`
		Name    string    `json:"name"`
		Version string    `json:"version"`
		PURL    string    `json:"purl"`
		Hashes  []bomHash `json:"hashes,omitempty"`
	}
	bomHash struct {
		Alg     string `json:"alg"`
		Content string `json:"content"` // hex
	}
)

// writeSBOM writes the modules that the program was linked from, as the linker
// noted them ("go version -m"), with the digests by which Go verified them.
func writeSBOM(w io.Writer, b build) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return fmt.Errorf("this program was built without module information")
	}
	component := func(typ, name, version string) bomComponent {
		purl := "pkg:golang/" + name + "@" + version
		return bomComponent{Type: typ, Ref: purl, Name: name, Version: version, PURL: purl}
	}
	main := component("application", "updraft", b.Version)
	doc := bom{Format: "CycloneDX", Spec: "1.5", Version: 1, Metadata: bomMetadata{main},
		Components: []bomComponent{component("library", "std", strings.TrimPrefix(info.GoVersion, "go"))}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		c := component("library", m.Path, m.Version)
		if sum, ok := strings.CutPrefix(m.Sum, "h1:"); ok {
			raw, err := base64.StdEncoding.DecodeString(sum)
			if err != nil {
				return fmt.Errorf("module %s: %w", m.Path, err)
			}
			c.Hashes = []bomHash{{"SHA-256", hex.EncodeToString(raw)}}
		}
		doc.Components = append(doc.Components, c)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(doc)
}
