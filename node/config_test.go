package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"updraft/node/identity"
)

// everyKey sets each key of the configuration file to something else than its
// default.
const everyKey = `
enrollment: /etc/updraft/dev.updraft
data: /var/lib/updraft
gateway: true
poll: 1h30m
listen: [/ip4/0.0.0.0/tcp/4001]
peers: [/ip4/10.0.0.2/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp]
origins: [https://a.example/, /srv/origin]
link: metered
uplink_rate: 1000000
lan_rate: 2000000
uplink_windows: ["* 1-5 * * *"]
looks_any_time: true
keep: 3
links: false
mdns: false
interfaces: [eth0]
dht: true
bootstrap: [/ip4/10.0.0.1/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp]
hooks:
  stage: /s
  commit: /c
  health: /h
  rollback: /r
  user: nobody
  timeout: 1m
memory: 8388608
metrics: 127.0.0.1:9100
metrics_token: secret
`

func TestEveryKey(t *testing.T) {
	def := DefaultConfig()
	cfg, err := parseConfig([]byte(everyKey), def)
	if err != nil {
		t.Fatal(err)
	}
	same(t, reflect.ValueOf(cfg), reflect.ValueOf(def), "")
	if err := cfg.validate(); err != nil {
		t.Error(err)
	}
	if cfg.Poll != 90*time.Minute || cfg.Hooks.Timeout != time.Minute || cfg.MDNS || cfg.Keep != 3 || cfg.Listen[0] != "/ip4/0.0.0.0/tcp/4001" {
		t.Errorf("%+v", cfg)
	}
}

// same reports the keys whose value is that of the defaults: the text above has
// forgotten them, or the decoder has.
func same(t *testing.T, got, def reflect.Value, path string) {
	t.Helper()
	for i := range got.NumField() {
		tag := got.Type().Field(i).Tag.Get("yaml")
		if tag == "-" {
			continue
		}
		name := path + tag
		if tag == "" {
			t.Errorf("field %s has no key", got.Type().Field(i).Name)
		}
		if got.Field(i).Kind() == reflect.Struct {
			same(t, got.Field(i), def.Field(i), name+".")
			continue
		}
		if reflect.DeepEqual(got.Field(i).Interface(), def.Field(i).Interface()) {
			t.Errorf("key %s was not set", name)
		}
	}
}

func TestKeysThatAreNone(t *testing.T) {
	for _, text := range []string{
		"polll: 1m", "Poll: 1m", "once: true", "log: x", "hooks: {reboot: /r}", "- a", "poll: soon", "poll: [1m]", "keep: many",
		"keep: 1\nkeep: 2", "data: a\n b: c", "mdns: maybe", "uplink_rate: 99999999999999999999", "listen: {a: b}", "\x00", "a: &x [*x]", "hooks: 1",
	} {
		cfg, err := parseConfig([]byte(text), DefaultConfig())
		if err == nil {
			t.Errorf("%q: %+v", text, cfg)
		}
		if !reflect.DeepEqual(cfg, DefaultConfig()) {
			t.Errorf("%q: an error, and a change", text)
		}
	}
}

func TestEmptyConfigKeepsTheBase(t *testing.T) {
	base := DefaultConfig()
	base.Data, base.Keep = "/d", 5
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "hooks:\n", "null"} {
		if cfg, err := parseConfig([]byte(text), base); err != nil || !reflect.DeepEqual(cfg, base) {
			t.Errorf("%q: %+v, %v", text, cfg, err)
		}
	}
	cfg, err := parseConfig([]byte("hooks: {stage: /s}"), base)
	if err != nil || cfg.Hooks.Timeout != base.Hooks.Timeout || cfg.Keep != 5 {
		t.Errorf("a part of the hooks: %+v, %v", cfg, err)
	}
}

func TestDefaultConfigRoundTrip(t *testing.T) {
	b, err := yaml.Marshal(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := parseConfig(b, Config{})
	if err != nil {
		t.Fatal(err)
	}
	again, err := yaml.Marshal(cfg)
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("%s became %s, %v", b, again, err)
	}
	if a, b := DefaultConfig(), DefaultConfig(); &a.Listen[0] == &b.Listen[0] {
		t.Error("two default configurations share memory")
	}
}

func TestLoadConfig(t *testing.T) {
	dir, base := t.TempDir(), DefaultConfig()
	path := filepath.Join(dir, "c.yaml")
	if _, err := LoadConfig(path, base); !errors.Is(err, ErrConfig) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := LoadConfig(dir, base); !errors.Is(err, ErrConfig) {
		t.Errorf("a directory: %v", err)
	}
	for text, ok := range map[string]bool{
		"keep: 4\n": true, "kept: 4\n": false,
		"keep: 4\n" + strings.Repeat("#", 1<<20-8): true, "keep: 4\n" + strings.Repeat("#", 1<<20-7): false,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := LoadConfig(path, base)
		if (err == nil) != ok || err != nil && (!errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), path)) || ok && cfg.Keep != 4 {
			t.Errorf("%.12q, %d bytes: keep %d, %v", text, len(text), cfg.Keep, err)
		}
	}
}

// TestConfigWithATokenIsSecret: a token in a file that others can read is refused.
func TestConfigWithATokenIsSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	for text, secret := range map[string]bool{"keep: 4\n": false, "metrics_token: x\n": true} {
		for _, mode := range []os.FileMode{0o600, 0o640, 0o604} {
			if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
				t.Fatal(err)
			}
			_, err := LoadConfig(path, DefaultConfig())
			if refused := errors.Is(err, identity.ErrPermissions); refused != (secret && mode != 0o600) || (err != nil) != refused {
				t.Errorf("%q with mode %o: %v", text, mode, err)
			}
		}
	}
}

func TestValidate(t *testing.T) {
	good := DefaultConfig()
	good.Enrollment, good.Data = "e", "d"
	if err := good.validate(); err != nil {
		t.Fatal(err)
	}
	for part, change := range map[string]func(*Config){
		"no enrollment file": func(c *Config) { c.Enrollment = "" },
		"no data directory":  func(c *Config) { c.Data = "" },
		"keep 0":             func(c *Config) { c.Keep = 0 },
		"keep -1":            func(c *Config) { c.Keep = -1 },
		"poll is below":      func(c *Config) { c.Poll = -time.Second },
		"uplink_rate is":     func(c *Config) { c.UplinkRate = -1 },
		"lan_rate is":        func(c *Config) { c.LANRate = -1 },
		"hooks.timeout is":   func(c *Config) { c.Hooks.Timeout = -1 },
		"memory is":          func(c *Config) { c.Memory = -1 },
		`link "fast"`:        func(c *Config) { c.Link = "fast" },
		"uplink_windows":     func(c *Config) { c.UplinkWindows = []string{"now and then"} },
	} {
		c := good
		change(&c)
		if err := c.validate(); !errors.Is(err, ErrConfig) || !strings.Contains(fmt.Sprint(err), part) {
			t.Errorf("want %q: %v", part, err)
		}
	}
	for link, want := range map[string]uint8{"": 0, LinkNormal: 0, LinkMetered: 1, LinkBackup: 2} {
		c := Config{Link: link}
		if got, err := c.linkClass(); err != nil || got != want {
			t.Errorf("link %q: %d, %v", link, got, err)
		}
	}
}

// FuzzConfig: what parses is written and read again as the same.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(everyKey))
	f.Add([]byte("keep: 0x10\npoll: 1h\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		cfg, err := parseConfig(b, DefaultConfig())
		if err != nil {
			return
		}
		_ = cfg.validate()
		text, err := yaml.Marshal(cfg)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseConfig(text, DefaultConfig())
		if err != nil {
			t.Fatalf("what was parsed cannot be read again: %v\n%s", err, text)
		}
		if third, err := yaml.Marshal(again); err != nil || !bytes.Equal(third, text) {
			t.Fatalf("%s became %s, %v", text, third, err)
		}
	})
}
