package testnet

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Release is a release that was published on the site's channel.
type Release struct {
	Path     string // what was published
	Version  string `json:"version"`
	Size     int64  `json:"size"`
	Full     int64  `json:"full_bytes"`
	Metadata int64  `json:"metadata_bytes"`
	Artifact []struct {
		Full    int64 `json:"full_bytes"`
		New     int64 `json:"new_bytes"`
		Patches []struct {
			Base  string `json:"base_version"`
			Bytes int64  `json:"bytes"`
		} `json:"patches"`
	} `json:"artifacts"`
	Digest string `json:"-"` // of Path; see Digest
}

// Needed returns the bytes that have to come from the origin to a site whose
// devices together hold the versions: metadata, and for each artifact the smallest
// patch that some device can apply, or all of it.
func (r *Release) Needed(held map[string]bool) int64 {
	if held[r.Version] {
		return 0
	}
	n := r.Metadata
	for _, a := range r.Artifact {
		best := a.Full
		if len(held) > 0 && a.New == 0 && len(a.Patches) == 0 {
			best = 0
		}
		for _, p := range a.Patches {
			if held[p.Base] {
				best = min(best, p.Bytes)
			}
		}
		n += best
	}
	return n
}

// Publish makes a release of the file or directory at path.
func (s *Site) Publish(ctx context.Context, version, path string) (*Release, error) {
	// The artifact has the same name in all releases, whatever the files are called.
	dir := filepath.Join(s.dir, "releases", version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("testnet: %w", err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("testnet: %w", err)
	}
	link := filepath.Join(dir, artifact)
	if err := os.Symlink(abs, link); err != nil {
		return nil, fmt.Errorf("testnet: %w", err)
	}
	args := []string{"publish", "--json", "--fleet", s.fleet(), "--channel", channel, "--version", version}
	if s.cfg.Whole {
		args = append(args, "--deltas", "0")
	}
	out, err := s.run(ctx, append(args, link)...)
	if err != nil {
		return nil, err
	}
	r := &Release{Path: path}
	if err := json.Unmarshal(out, r); err != nil {
		return nil, fmt.Errorf("testnet: what publish printed: %w", err)
	}
	if r.Digest, err = Digest(path); err != nil {
		return nil, err
	}
	return r, nil
}
