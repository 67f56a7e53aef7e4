package fleet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/delta/release"
	"updraft/node/identity"
)

// Renew signs new certificates, for the keys they have, for all devices of whose
// certificate a third of its validity is left or less, and returns these devices. With
// names it does so for the devices named, however much is left. A new certificate is
// valid for as long as the one before it was. Of devices that are revoked none is
// renewed; to name one is ErrRevoked.
//
// The certificates lie at the origin from then on, where devices find their own and
// their neighbours'. Those of devices that are revoked or enrolled anew are removed.
func (f *Fleet) Renew(names ...string) (renewed []Device, err error) {
	err = f.locked(func() error {
		repo, err := f.Repo()
		if err != nil {
			return err
		}
		renewed, err = f.renew(repo, names)
		if len(renewed) > 0 {
			err = errors.Join(err, repo.Stamp())
		}
		return err
	})
	return renewed, err
}

func (f *Fleet) renew(repo *release.Repo, names []string) ([]Device, error) {
	devices, err := f.Devices()
	if err != nil {
		return nil, err
	}
	revoked, _, err := f.revocations(repo)
	if err != nil {
		return nil, err
	}
	certs := map[string]*identity.Cert{} // of devices that are not revoked
	gone := map[string]error{}
	for _, d := range devices {
		c, err := d.cert()
		if err != nil {
			return nil, err
		}
		if err := revoked.Check(c); err != nil {
			gone[d.Name] = err
			continue
		}
		certs[d.Name] = c
	}
	for _, name := range names {
		if gone[name] != nil {
			return nil, gone[name]
		}
		if certs[name] == nil {
			return nil, fmt.Errorf("%w: %s", ErrUnknown, name)
		}
	}
	var renewed []Device
	current := map[string]bool{} // files at the origin that stay
	for _, d := range devices {
		c := certs[d.Name]
		if c == nil {
			continue
		}
		site, err := f.SiteKey(d.Site)
		if err != nil {
			return renewed, err
		}
		file := identity.RenewalName(site, c.Peer)
		current[file] = true
		if !slices.Contains(names, d.Name) && (len(names) > 0 || f.now().Before(c.Due())) {
			continue
		}
		if d, err = f.renewDevice(d, *c, file); err != nil {
			return renewed, err
		}
		renewed = append(renewed, d)
	}
	return renewed, f.tidyRenewals(current)
}

// cert is the certificate that the device has, as far as its record tells.
func (d *Device) cert() (*identity.Cert, error) {
	id, err := peer.Decode(d.Peer)
	if err != nil {
		return nil, fmt.Errorf("fleet: record of %s: %w", d.Name, err)
	}
	return &identity.Cert{Serial: d.Serial, Peer: id, Name: d.Name, Type: d.Type, Site: d.Site, Roles: d.Roles,
		NotBefore: d.Enrolled, NotAfter: d.NotAfter}, nil
}

// renewDevice puts a new certificate in the place of c at the origin, then into the
// record: if it ends in between, the next one does it again.
func (f *Fleet) renewDevice(d Device, c identity.Cert, file string) (Device, error) {
	ca, err := f.ca()
	if err != nil {
		return d, err
	}
	life := c.NotAfter - c.NotBefore
	if c.Serial, err = newSerial(); err != nil {
		return d, err
	}
	c.NotBefore = max(f.now().Unix(), c.NotBefore+1)
	c.NotAfter = max(c.NotBefore+life, c.NotAfter+1)
	b, err := c.Sign(ca)
	if err != nil {
		return d, err
	}
	if err := os.MkdirAll(f.path("origin", identity.RenewalDir), 0o755); err != nil {
		return d, err
	}
	if err := writeFile(f.path("origin", filepath.FromSlash(file)), b); err != nil {
		return d, err
	}
	d.Serial, d.Enrolled, d.NotAfter = c.Serial, c.NotBefore, c.NotAfter
	return d, f.record(d)
}

// tidyRenewals removes renewed certificates but those of files, and what an
// interrupted write left.
func (f *Fleet) tidyRenewals(files map[string]bool) error {
	entries, err := os.ReadDir(f.path("origin", identity.RenewalDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if files[identity.RenewalDir+"/"+e.Name()] {
			continue
		}
		if err := os.Remove(f.path("origin", identity.RenewalDir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
