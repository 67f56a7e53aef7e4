package node

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/multiformats/go-multiaddr"
	"go.yaml.in/yaml/v3"

	"updraft/node/identity"
	"updraft/swarm"
	"updraft/swarm/limit"
)

// Config is what an agent is told. The zero value is not usable: start from
// DefaultConfig. Fields with a yaml name may stand in the configuration file.
type Config struct {
	// Enrollment is the path of the enrollment file. Required.
	Enrollment string `yaml:"enrollment"`
	// Data is the directory of all state; created when missing. Required. Only one
	// agent may use it at a time.
	Data string `yaml:"data"`
	// Gateway makes the device prefer to hold the uplink and accept more peers. Its
	// certificate must allow that role; without it, the device works on as a device.
	Gateway bool `yaml:"gateway"`
	// Once makes Run return when the channel's newest release is in service.
	Once bool `yaml:"-"`
	// Poll is the time between looks for a new release, for the site as a whole.
	// 0: only when told to (Check). Default 15m.
	Poll time.Duration `yaml:"poll"`
	// Listen are the multiaddrs to listen on. Default: any free TCP port of IPv4
	// and of IPv6.
	Listen []string `yaml:"listen"`
	// Peers are multiaddrs (with /p2p/ID) of devices to connect to without
	// discovery. Added to those of the enrollment.
	Peers []string `yaml:"peers"`
	// Origins are URLs or directories of the origin that replace those of the
	// enrollment. Empty: the enrollment's.
	Origins []string `yaml:"origins"`
	// Link is the class of this device's uplink: normal, metered or backup. A
	// better class is preferred. Default normal.
	Link string `yaml:"link"`
	// UplinkRate and LANRate limit what this device downloads from the origin and
	// what it sends to peers, in bytes per second. 0: unlimited (default).
	UplinkRate int64 `yaml:"uplink_rate"`
	LANRate    int64 `yaml:"lan_rate"`
	// UplinkWindows are cron expressions (minute hour day month weekday) of the
	// minutes in which the origin may be used, in the device's time zone. Outside of
	// them a release comes from the other devices only, and nobody looks for one
	// but when a person asks (updraft check). Empty: always.
	UplinkWindows []string `yaml:"uplink_windows"`
	// LooksAnyTime lets this device look for a release outside of UplinkWindows as
	// well: some hundred bytes when there is nothing new, a few thousand when there
	// is. The release itself still waits for a window. Default false.
	LooksAnyTime bool `yaml:"looks_any_time"`
	// Keep is how many releases stay on the device, the one in service included;
	// at least 1. Default 2.
	Keep int `yaml:"keep"`
	// Links makes files of a tree that are the same in the release in service and
	// the new one further names of one file, so that they are not written again.
	// Only those are that nobody but the agent's user and root can write to. Set it to
	// false where an application that runs as one of them writes to files of its own
	// release: that would change them in the release that a rollback returns to.
	// Default true.
	Links bool `yaml:"links"`
	// MDNS finds the site's devices by multicast. Default true.
	MDNS bool `yaml:"mdns"`
	// Interfaces restricts MDNS to these network interfaces. Empty: all that are
	// up and can do multicast. Without MDNS it names those at which the agent
	// watches for changes, to make its connections anew.
	Interfaces []string `yaml:"interfaces"`
	// DHT finds devices on other segments of the site through Bootstrap nodes.
	// Default false.
	DHT bool `yaml:"dht"`
	// Bootstrap are multiaddrs (with /p2p/ID) of DHT nodes. Added to those of the
	// enrollment.
	Bootstrap []string `yaml:"bootstrap"`
	// Hooks are programs that take part in an install.
	Hooks HookConfig `yaml:"hooks"`
	// Memory bounds the heap of a patch decoder, in bytes. Default 32 MiB.
	Memory int64 `yaml:"memory"`
	// Metrics is an address (host:port) for Prometheus metrics; it binds to
	// loopback unless a host is given. Empty: off (default).
	Metrics string `yaml:"metrics"`
	// MetricsToken must come with each request for metrics, as a bearer token; it
	// is required beyond loopback. A file with a token must have mode 0600. Empty:
	// none (default).
	MetricsToken string `yaml:"metrics_token"`
	// Log takes records; nil is silent.
	Log *slog.Logger `yaml:"-"`
}

// HookConfig names programs that are run at the steps of an install; see package
// node/install for their environment. Empty: step is skipped.
type HookConfig struct {
	Stage    string        `yaml:"stage"`    // after the release is complete, before it is in service
	Commit   string        `yaml:"commit"`   // after it has been put in service
	Health   string        `yaml:"health"`   // must exit 0 for the release to stay
	Rollback string        `yaml:"rollback"` // after the old release is back in service
	User     string        `yaml:"user"`     // run as this user; empty: the agent's
	Timeout  time.Duration `yaml:"timeout"`  // of each program; default 5m
}

// Classes of the uplink.
const (
	LinkNormal  = "normal"
	LinkMetered = "metered"
	LinkBackup  = "backup"
)

// DefaultConfig returns the defaults that Config's fields document.
func DefaultConfig() Config {
	return Config{
		Poll:   15 * time.Minute,
		Listen: []string{"/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"},
		Link:   LinkNormal,
		Keep:   2,
		Links:  true,
		MDNS:   true,
		Hooks:  HookConfig{Timeout: 5 * time.Minute},
		Memory: 32 << 20,
	}
}

var (
	// ErrConfig is wrapped by errors about a configuration.
	ErrConfig = errors.New("node: bad configuration")
	// ErrListen reports that no address of Listen is to be had.
	ErrListen = swarm.ErrListen
)

// LoadConfig reads the YAML file at path over base. Unknown keys are refused, and
// files above 1 MiB.
func LoadConfig(path string, base Config) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return base, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20+1))
	if err != nil {
		return base, fmt.Errorf("%w: %s: %w", ErrConfig, path, err)
	}
	if len(b) > 1<<20 {
		return base, fmt.Errorf("%w: %s is larger than 1 MiB", ErrConfig, path)
	}
	cfg, err := parseConfig(b, base)
	if err != nil {
		return base, fmt.Errorf("%w: %s: %w", ErrConfig, path, err)
	}
	if info, err := f.Stat(); err != nil || cfg.MetricsToken != base.MetricsToken && info.Mode().Perm()&0o077 != 0 {
		return base, fmt.Errorf("%w: %s holds a token: %w; chmod 600 it", ErrConfig, path, cmp.Or(err, identity.ErrPermissions))
	}
	return cfg, nil
}

func parseConfig(b []byte, base Config) (Config, error) {
	cfg := base
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&cfg); err != nil && !errors.Is(err, io.EOF) {
		return base, err
	}
	return cfg, nil
}

// linkClass returns the rank of the uplink's class, 0 the best.
func (c *Config) linkClass() (uint8, error) {
	switch c.Link {
	case LinkNormal, "":
		return 0, nil
	case LinkMetered:
		return 1, nil
	case LinkBackup:
		return 2, nil
	}
	return 0, fmt.Errorf("%w: link %q is none of normal, metered, backup", ErrConfig, c.Link)
}

func (c *Config) validate() error {
	if _, err := c.linkClass(); err != nil {
		return err
	}
	if _, err := limit.ParseSchedule(c.UplinkWindows); err != nil {
		return fmt.Errorf("%w: uplink_windows: %w", ErrConfig, err)
	}
	for _, a := range c.Listen {
		if _, err := multiaddr.NewMultiaddr(a); err != nil {
			return fmt.Errorf("%w: listen: %q is not a multiaddr such as /ip4/0.0.0.0/tcp/4001: %w", ErrConfig, a, err)
		}
	}
	switch {
	case c.Enrollment == "":
		return fmt.Errorf("%w: no enrollment file named", ErrConfig)
	case c.Data == "":
		return fmt.Errorf("%w: no data directory named", ErrConfig)
	case c.Keep < 1:
		return fmt.Errorf("%w: keep %d is below 1", ErrConfig, c.Keep)
	}
	for _, n := range []struct {
		name     string
		negative bool
	}{
		{"poll", c.Poll < 0},
		{"uplink_rate", c.UplinkRate < 0},
		{"lan_rate", c.LANRate < 0},
		{"memory", c.Memory < 0},
		{"hooks.timeout", c.Hooks.Timeout < 0},
	} {
		if n.negative {
			return fmt.Errorf("%w: %s is below 0", ErrConfig, n.name)
		}
	}
	return nil
}
