package report

import "time"

// StatusFormat is the version of the JSON types here. It grows when a field changes
// its meaning or goes; readers ignore fields they do not know.
const StatusFormat = 1

// Status is the state of a device.
type Status struct {
	Format    int              `json:"format"` // StatusFormat; filled in by Handler
	Name      string           `json:"name"`
	Type      string           `json:"type"`
	Site      string           `json:"site"`
	Channel   string           `json:"channel"`
	Role      string           `json:"role"` // device or gateway
	PeerID    string           `json:"peer_id"`
	State     string           `json:"state"`              // starting, idle, checking, fetching, rebuilding, installing, failed
	Current   string           `json:"current"`            // version in service; empty: none
	Target    string           `json:"target"`             // version the channel names; empty: unknown
	Holder    string           `json:"holder,omitempty"`   // device that holds the uplink now
	IsHolder  bool             `json:"is_holder"`          // it is this device
	Progress  *Progress        `json:"progress,omitempty"` // of the update under way
	Bytes     Bytes            `json:"bytes"`              // since the agent started
	Peers     int              `json:"peers"`              // connected devices of the site
	Problems  []Problem        `json:"problems"`
	WhyFor    string           `json:"why_for,omitempty"` // version that the reasons are for: the newest known
	Why       []string         `json:"why,omitempty"`     // reasons of the last plan this device made for it, and whose it follows
	Brought   int64            `json:"brought,omitempty"` // bytes that this device brought for it over the uplink
	LastCheck time.Time        `json:"last_check,omitzero"`
	Since     time.Time        `json:"since"`              // start of the agent
	NotAfter  time.Time        `json:"not_after,omitzero"` // end of the device's certificate
	Releases  []ReleaseStatus  `json:"releases"`
	Refused   []RefusedRelease `json:"refused,omitempty"` // not tried again before a retry
}

// Progress counts verified bytes of the release under way.
type Progress struct {
	Have  int64 `json:"have"`
	Total int64 `json:"total"`
}

// Bytes counts by source.
type Bytes struct {
	Uplink  int64 `json:"uplink"`  // received from the origin, with HTTP headers
	LANIn   int64 `json:"lan_in"`  // payload received from peers
	LANOut  int64 `json:"lan_out"` // payload sent to peers
	Reused  int64 `json:"reused"`  // taken from releases held here
	Written int64 `json:"written"` // written to the file system for releases
}

// ReleaseStatus is a release held on the device.
type ReleaseStatus struct {
	Version   string           `json:"version"`
	InService bool             `json:"in_service"`
	Artifacts []ArtifactStatus `json:"artifacts"`
}

// RefusedRelease is one that did not work on the device.
type RefusedRelease struct {
	Version string    `json:"version"`
	Reason  string    `json:"reason"`
	Time    time.Time `json:"time"`
}

// Plan is what the site would bring over the uplink for a release.
type Plan struct {
	Version   string         `json:"version"`
	InService bool           `json:"in_service"` // on this device
	Bytes     int64          `json:"bytes"`      // over the uplink
	Estimate  bool           `json:"estimate"`   // some of Bytes are of chunks: see PlanWay
	Artifacts []PlanArtifact `json:"artifacts"`
}

// PlanArtifact is the part of a plan for one artifact.
type PlanArtifact struct {
	Name  string    `json:"name"`
	Size  int64     `json:"size"`  // bytes of the stream
	Bytes int64     `json:"bytes"` // over the uplink
	Ways  []PlanWay `json:"ways"`  // the one to be taken, then the others
}

// PlanWay is one way to bring an artifact.
type PlanWay struct {
	Kind     string   `json:"kind"`              // patch, chain, chunks or nothing
	Base     string   `json:"base,omitempty"`    // of a patch or chain: the version it starts from
	Via      []string `json:"via,omitempty"`     // of a chain: the versions it passes
	Between  int64    `json:"between,omitempty"` // of a chain: bytes written on the way that are not kept
	Profile  string   `json:"profile,omitempty"` // of a patch: plain or dense
	Work     int64    `json:"work,omitempty"`    // of a patch or chain: for the decoder, in bytes of a plain one
	Holders  []string `json:"holders,omitempty"` // of a patch or chain: the devices that could apply it
	Bytes    int64    `json:"bytes"`             // over the uplink
	Estimate bool     `json:"estimate"`          // Bytes are of chunks, as if each were packed like the release on average
	Possible bool     `json:"possible"`
	Why      string   `json:"why"` // in the words of Status.Why
}

// ArtifactStatus is one artifact of a release.
type ArtifactStatus struct {
	Name string `json:"name"`
	Kind string `json:"kind"` // file or tree
	Size int64  `json:"size"` // bytes of the stream
	CID  string `json:"cid"`  // digest of the stream, as CIDv1 raw sha2-256
}

// Peer is a connected device of the site.
type Peer struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Type     string    `json:"type"`
	Roles    []string  `json:"roles"`
	Addr     string    `json:"addr"` // multiaddr of the connection
	Since    time.Time `json:"since"`
	Version  string    `json:"version"`  // in service there
	State    string    `json:"state"`    // as Status.State
	Progress int       `json:"progress"` // per mille of its update
	Gateway  bool      `json:"gateway"`
	BytesIn  int64     `json:"bytes_in"`  // payload received from it
	BytesOut int64     `json:"bytes_out"` // payload sent to it
}

// CheckResult is what a look for a release found.
type CheckResult struct {
	Current string `json:"current"`
	Target  string `json:"target"`
	New     bool   `json:"new"` // Target is not in service yet
}
