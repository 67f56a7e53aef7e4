package fleet

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"updraft/delta/release"
	"updraft/node/identity"
)

// DefaultTTL is how long a certificate is valid.
const DefaultTTL = 730 * 24 * time.Hour

// DefaultRoles are those of a device for which none are named. Any device may be
// configured as a gateway then; a fleet that names the roles decides that itself.
func DefaultRoles() []string { return []string{identity.RoleDevice, identity.RoleGateway} }

// EnrollOptions describes a device.
type EnrollOptions struct {
	Name      string        // of the device; with a Request empty: the one asked for
	Type      string        // empty: the request's, or release.AnyType
	Site      string        // empty: "default"
	Channel   string        // empty: "stable"
	Origins   []string      // http(s) or file URLs, or absolute directories
	Peers     []string      // multiaddrs with /p2p/
	Bootstrap []string      // multiaddrs with /p2p/
	Roles     []string      // besides device, which all have; empty: DefaultRoles
	TTL       time.Duration // zero: DefaultTTL
	Request   []byte        // a request made on the device; empty: the key is made here
	Replace   bool          // the name is enrolled already: give out a new certificate; see Device.Earlier
}

// Device is the latest certificate that was given out under a name.
type Device struct {
	Name     string   `json:"name"`
	Type     string   `json:"type"`
	Site     string   `json:"site"`
	Channel  string   `json:"channel"`
	Roles    []string `json:"roles"`
	Serial   uint64   `json:"serial,string"`
	Peer     string   `json:"peer"`
	Former   []string `json:"former,omitempty"` // peer IDs that it had before, the oldest first
	Enrolled int64    `json:"enrolled"`         // unix seconds; when the latest certificate was signed
	NotAfter int64    `json:"not_after"`        // unix seconds
	// Earlier is when the last of the certificates ends that were given out under the name before
	// it was enrolled again; unix seconds, 0: none was, or they had been revoked by then. They are
	// good until then: only Revoke ends them, which is of all that were given out up to then, so
	// that it comes before enrolling again.
	Earlier int64 `json:"earlier,omitempty"`
}

// Enroll makes a device of the fleet: it signs a certificate for a new key, or for
// the key of a request, and returns what the device needs. The key of a new device
// is only in what is returned. A request whose key is or was a device's of another name
// is ErrOtherName.
func (f *Fleet) Enroll(o EnrollOptions) (e *identity.Enrollment, err error) {
	var key []byte
	var id peer.ID
	if len(o.Request) > 0 {
		r, err := identity.ParseRequest(o.Request)
		if err != nil {
			return nil, err
		}
		id = r.Peer
		o.Name, o.Type = or(o.Name, r.Name), or(o.Type, r.Type)
	} else {
		if key, err = identity.NewKey(); err != nil {
			return nil, err
		}
		if _, id, err = identity.ParseKey(key); err != nil {
			return nil, err
		}
	}
	o.complete()
	if err := o.check(); err != nil {
		return nil, err
	}
	err = f.locked(func() error {
		e, err = f.enroll(o, id, key)
		return err
	})
	return e, err
}

// complete fills in what is empty.
func (o *EnrollOptions) complete() {
	o.Type, o.Site, o.Channel = or(o.Type, release.AnyType), or(o.Site, "default"), or(o.Channel, "stable")
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (o *EnrollOptions) check() error {
	if err := release.CheckChannel(o.Channel); err != nil {
		return fmt.Errorf("%w: %w", ErrOptions, err)
	}
	for what, s := range map[string]string{"device name": o.Name, "device type": o.Type, "site": o.Site} {
		if err := identity.CheckName(s); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrOptions, what, err)
		}
	}
	for _, r := range o.Roles {
		if all := []string{identity.RoleDevice, identity.RoleGateway, identity.RoleOperator}; !slices.Contains(all, r) {
			return fmt.Errorf("%w: role %.80q is none of %s", ErrOptions, r, strings.Join(all, ", "))
		}
	}
	if o.TTL < 0 {
		return fmt.Errorf("%w: validity of %v", ErrOptions, o.TTL)
	}
	for _, s := range o.Origins {
		u, err := url.Parse(s)
		if err != nil || !filepath.IsAbs(s) && !(u.Host != "" && slices.Contains([]string{"http", "https"}, u.Scheme)) && u.Scheme != "file" {
			return fmt.Errorf("%w: origin %q: use http://, https://, file:/// or an absolute directory", ErrOptions, s)
		}
	}
	for _, s := range slices.Concat(o.Peers, o.Bootstrap) {
		a, err := multiaddr.NewMultiaddr(s)
		if err == nil {
			_, err = peer.AddrInfoFromP2pAddr(a)
		}
		if err != nil {
			return fmt.Errorf("%w: peer %q: %w", ErrOptions, s, err)
		}
	}
	return nil
}

func (f *Fleet) enroll(o EnrollOptions, id peer.ID, key []byte) (*identity.Enrollment, error) {
	if _, err := os.Lstat(f.path("devices", o.Name+".json")); err == nil && !o.Replace {
		return nil, fmt.Errorf("%w: device %s", ErrExists, o.Name)
	}
	ca, err := f.ca()
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	repo, err := f.Repo()
	if err != nil {
		return nil, err
	}
	now := f.now()
	revoked, _, err := f.revocations(repo)
	if err != nil {
		return nil, err
	}
	if r, ok := revoked.Find(o.Name); ok && now.Unix() <= r.At { // this certificate is a new one
		now = time.Unix(r.At+1, 0)
	}
	if key == nil {
		if err := f.otherName(o.Name, id.String(), revoked); err != nil {
			return nil, err
		}
	}
	var former []string
	var earlier int64
	if d, err := f.device(o.Name); err == nil {
		if now.Unix() <= d.Enrolled { // a revocation from here on is of all before, too
			now = time.Unix(d.Enrolled+1, 0)
		}
		if former = d.Former; d.Peer != id.String() {
			former = append(former, d.Peer)
		}
		if r, ok := revoked.Find(o.Name); !ok || r.At < d.Enrolled {
			earlier = max(d.Earlier, d.NotAfter)
		}
		former = slices.DeleteFunc(former, func(p string) bool { return p == id.String() })
	}
	c := identity.Cert{Serial: serial, Peer: id, Name: o.Name, Type: o.Type, Site: o.Site,
		Roles: roles(o), NotBefore: now.Unix(), NotAfter: now.Add(o.TTL).Unix()}
	cert, err := c.Sign(ca)
	if err != nil {
		return nil, err
	}
	public, err := f.Authority()
	if err != nil {
		return nil, err
	}
	root, err := repo.Root()
	if err != nil {
		return nil, err
	}
	site, err := f.SiteKey(o.Site)
	if err != nil {
		return nil, err
	}
	e := &identity.Enrollment{Fleet: f.config.Name, CA: public, Root: root, Key: key, Cert: cert, SiteKey: site,
		Name: o.Name, Type: o.Type, Site: o.Site, Channel: o.Channel, Origins: o.Origins, Peers: o.Peers, Bootstrap: o.Bootstrap}
	if _, err := e.Encode(); err != nil {
		return nil, err
	}
	return e, f.record(Device{Name: c.Name, Type: c.Type, Site: c.Site, Channel: o.Channel, Roles: c.Roles, Serial: c.Serial,
		Peer: id.String(), Former: former, Enrolled: c.NotBefore, NotAfter: c.NotAfter, Earlier: earlier})
}

func newSerial() (uint64, error) {
	var b [8]byte
	_, err := rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:]), err
}

// record notes the certificate that a device was given.
func (f *Fleet) record(d Device) error {
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	return identity.WriteSecret(f.path("devices", d.Name+".json"), append(b, '\n'))
}

func roles(o EnrollOptions) []string {
	if len(o.Roles) == 0 {
		return DefaultRoles()
	}
	list := []string{identity.RoleDevice}
	for _, r := range o.Roles {
		if !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	return list
}

// Devices lists the devices enrolled, by name.
func (f *Fleet) Devices() ([]Device, error) {
	entries, err := os.ReadDir(f.path("devices"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []Device
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		d, err := f.device(strings.TrimSuffix(e.Name(), ".json"))
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, nil
}

// device reads a device's record; ErrUnknown without one.
func (f *Fleet) device(name string) (d Device, err error) {
	b, err := os.ReadFile(f.path("devices", name+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return d, fmt.Errorf("%w: %s", ErrUnknown, name)
	}
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return d, fmt.Errorf("%s: %w", f.path("devices", name+".json"), err)
	}
	return d, nil
}
