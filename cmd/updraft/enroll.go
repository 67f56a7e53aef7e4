package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"updraft/node/fleet"
	"updraft/node/identity"
)

type enrollOptions struct {
	fleet   string
	out     string
	request string
	gateway bool
	device  fleet.EnrollOptions
}

func newEnroll(u *ui) *cobra.Command {
	var o enrollOptions
	c := &cobra.Command{
		Use:   "enroll --fleet DIR --name NAME -o FILE",
		Short: "Make a device of the fleet",
		Long: `Write one file that holds all a device needs: its key and certificate, the root of
trust, the secret of its site, and where the origin is. Keep the file secret: who has
it is that device.

Which device of a site is its gateway (updraft agent --gateway), its owner decides: the
certificate allows it unless --role device is given. Other devices let none rank as a
gateway whose certificate does not allow it. Where a device may fall into wrong hands,
give --role device, and --role gateway to the gateway: so none can take its place.

The key can also be made on the device, and never leave it:
  on the device     updraft enroll request --name NAME -o NAME.request
  at the fleet      updraft enroll --fleet DIR --request NAME.request --site SITE -o NAME.answer
  on the device     updraft enroll complete --key NAME.request.key NAME.answer -o NAME.updraft
Many devices join with a token: see updraft token.

A device that is enrolled again, with --replace, has a new certificate; the one before
stays good until it ends, for whoever has its key. Where it must not, such as one with
roles that the device is to lose, or of a device that was stolen or copied, first
  updraft revoke --fleet DIR NAME
and only then enroll it with --replace: revoking takes all certificates made so far.`,
		Example: `  updraft enroll --fleet fleet --name till-7 --type rpi4 --site store-12 \
      --origin https://updates.example -o till-7.updraft`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error { return enroll(u, o) },
	}
	f := c.Flags()
	d := &o.device
	f.StringVar(&o.fleet, "fleet", "", "directory of the fleet (required)")
	f.StringVar(&d.Name, "name", "", "name of the device (required without --request)")
	f.StringVar(&d.Type, "type", "", "type of the device (default: the request's, or any)")
	deviceFlags(c, d)
	f.BoolVar(&o.gateway, "gateway", false, "the same as --role gateway")
	f.BoolVar(&d.Replace, "replace", false, "give out a new certificate for a name that is enrolled already, also into the file that has the old one; the certificate before stays good unless it was revoked first")
	f.StringVar(&o.request, "request", "", "file with the request of a device that made its own key")
	f.StringVarP(&o.out, "output", "o", "", "file to write (default: NAME.updraft)")
	required(c, "fleet")
	c.AddCommand(newEnrollRequest(u), newEnrollApprove(u), newEnrollComplete(u))
	return c
}

// deviceFlags adds the flags that say what a device is made as.
func deviceFlags(c *cobra.Command, d *fleet.EnrollOptions) {
	f := c.Flags()
	f.StringVar(&d.Site, "site", "default", "site: devices that share an uplink and reach each other")
	f.StringVar(&d.Channel, "channel", "stable", "channel the device follows")
	f.StringSliceVar(&d.Origins, "origin", nil, "URL or absolute directory of the origin; may be repeated, tried in order")
	f.StringSliceVar(&d.Peers, "peer", nil, "multiaddr with /p2p/ID of a device to connect to without discovery; may be repeated")
	f.StringSliceVar(&d.Bootstrap, "bootstrap", nil, "multiaddr with /p2p/ID of a DHT node, for sites of several segments; may be repeated")
	f.StringSliceVar(&d.Roles, "role", fleet.DefaultRoles(), "what the certificate allows: device, gateway, operator (see updraft site); may be repeated")
	f.DurationVar(&d.TTL, "validity", fleet.DefaultTTL, "of the certificate; see updraft renew")
}

func enroll(u *ui, o enrollOptions) error {
	f, err := fleet.Open(o.fleet, fleet.Options{Keys: u.keys()})
	if err != nil {
		return err
	}
	d := o.device
	if o.gateway {
		d.Roles = append(d.Roles, identity.RoleGateway)
	}
	if o.request != "" {
		if d.Request, err = readLimited(o.request, identity.MaxRequest); err != nil {
			return err
		}
	} else if d.Name == "" {
		return usagef("--name is missing")
	}
	if len(d.Origins) == 0 {
		u.note("No --origin given: the device will live off its neighbours only.")
	}
	// Before the name is taken.
	if _, err := os.Stat(filepath.Dir(o.out)); err != nil {
		return err
	}
	out, err := enrollmentFile(o.out, d)
	if err != nil {
		return err
	}
	e, err := f.Enroll(d)
	if err != nil {
		return err
	}
	if err := e.Write(out); err != nil {
		return hinted{err, "the device counts as enrolled all the same: mend this and repeat the command with --replace"}
	}
	return enrolled(u, e, out, earlier(f, o.fleet, e.Name))
}

// enrollmentFile returns the file to write. What is there already is replaced only where it is
// an earlier enrollment of the device, and one insists: a key that it holds is nowhere else.
func enrollmentFile(out string, d fleet.EnrollOptions) (string, error) {
	name := d.Name
	if len(d.Request) > 0 && name == "" {
		r, err := identity.ParseRequest(d.Request)
		if err != nil {
			return "", err
		}
		name = r.Name
	}
	out = cmp.Or(out, name+".updraft")
	return out, replaceable(out, name, func(*identity.Enrollment) bool { return d.Replace })
}

// issued is what the fleet knows when it has enrolled a device.
type issued struct {
	earlier time.Time // the end of certificates that the device had before; zero: none is good
	revoke  string    // the command that ends them
}

// earlier returns what is to be said of the certificates that a device had before.
func earlier(f *fleet.Fleet, dir, name string) *issued {
	list, _ := f.Devices() // it is enrolled; a record of another device that cannot be read is no reason to fail
	for _, d := range list {
		if t := time.Unix(d.Earlier, 0).UTC(); d.Name == name && t.After(time.Now()) {
			return &issued{t, fmt.Sprintf("updraft revoke --fleet %s %s", dir, name)}
		}
	}
	return new(issued)
}

// enrolled prints what was written to out, and what the fleet says of it; nil: this is the device.
func enrolled(u *ui, e *identity.Enrollment, out string, by *issued) error {
	cert, err := e.Certificate(time.Time{})
	if err != nil {
		return err
	}
	v := map[string]any{"file": out, "name": e.Name, "type": e.Type, "site": e.Site, "channel": e.Channel, "origins": e.Origins,
		"peer_id": cert.Peer.String(), "roles": cert.Roles, "not_after": time.Unix(cert.NotAfter, 0).UTC(), "has_key": len(e.Key) > 0}
	old := by != nil && !by.earlier.IsZero()
	if old {
		v["earlier_not_after"], v["earlier_hint"] = by.earlier, "to end it: "+by.revoke+"; then enroll again with --replace, as revoking takes the new certificate too"
	}
	return u.result(v, func(w io.Writer) {
		fmt.Fprintf(w, "%s holds the enrollment of %s (%s) at site %s, channel %s, valid until %s.\n", out, e.Name, e.Type, e.Site, e.Channel,
			time.Unix(cert.NotAfter, 0).UTC().Format(time.DateOnly))
		fmt.Fprintf(w, "Peer ID %s\n", cert.Peer)
		if old {
			fmt.Fprintf(w, "The certificate that %s had before stays good until %s. To end it, in this order, as revoking takes the new one too:\n  %s\n  this command again\n",
				e.Name, by.earlier.Format(time.DateOnly), by.revoke)
		}
		if len(e.Key) == 0 {
			fmt.Fprintf(w, "Next, on the device:\n  updraft enroll complete --key FILE %s -o %s.updraft\n", filepath.Base(out), e.Name)
			return
		}
		next := fmt.Sprintf("updraft agent --enrollment %s --data /var/lib/updraft", filepath.Base(out))
		if by == nil {
			fmt.Fprintf(w, "Next:\n  %s\n", next)
			return
		}
		fmt.Fprintf(w, "Bring it to the device by a safe way, mode 0600, then:\n  %s\n", next)
	})
}

func newEnrollRequest(u *ui) *cobra.Command {
	var name, typ, out, tokenFile string
	c := &cobra.Command{
		Use:     "request --name NAME -o FILE",
		Short:   "On the device: make its key and a request for a certificate",
		Example: "  updraft enroll request --name till-7 --type rpi4 -o till-7.request",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if out == "" {
				out = name + ".request"
			}
			keyFile := out + ".key"
			if _, err := os.Lstat(keyFile); err == nil {
				return fmt.Errorf("%s exists: a key is not overwritten", keyFile)
			}
			if err := vacant(out); err != nil {
				return err
			}
			var token *identity.Token
			if tokenFile != "" {
				var err error
				if token, err = u.token(tokenFile); err != nil {
					return err
				}
			}
			key, req, err := identity.NewRequest(name, typ, token)
			if err != nil {
				return usageError{err}
			}
			if err := identity.WriteSecret(keyFile, key); err != nil {
				return err
			}
			if err := os.WriteFile(out, req, 0o644); err != nil {
				return err
			}
			return u.result(map[string]any{"request": out, "key": keyFile}, func(w io.Writer) {
				fmt.Fprintf(w, "%s is the request: bring it to the fleet. %s is the key: it stays here.\n", out, keyFile)
			})
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the device (required)")
	c.Flags().StringVar(&typ, "type", "any", "type of the device")
	c.Flags().StringVar(&tokenFile, "token", "", "file with a token of the fleet, see updraft token; -: standard input")
	c.Flags().StringVarP(&out, "output", "o", "", "file to write; the key goes to FILE.key (default: NAME.request)")
	required(c, "name")
	return c
}

func newEnrollComplete(u *ui) *cobra.Command {
	var keyFile, out string
	var replace bool
	c := &cobra.Command{
		Use:     "complete --key FILE ANSWER -o FILE",
		Short:   "On the device: join the fleet's answer and the key",
		Example: "  updraft enroll complete --key till-7.request.key till-7.answer -o till-7.updraft",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := readLimited(args[0], identity.MaxEnrollment)
			if err != nil {
				return err
			}
			e, err := identity.ParseEnrollment(b)
			if err != nil {
				return err
			}
			key, err := identity.ReadSecret(keyFile, 256)
			if err != nil {
				return err
			}
			if err := e.Complete(key); err != nil {
				return err
			}
			if out == "" {
				out = e.Name + ".updraft"
			}
			// Another key may be nowhere else.
			may := func(old *identity.Enrollment) bool {
				return replace || len(old.Key) == 0 || bytes.Equal(old.Key, e.Key)
			}
			if err := replaceable(out, e.Name, may); err != nil {
				return err
			}
			if err := e.Write(out); err != nil {
				return err
			}
			return enrolled(u, e, out, nil)
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "the key that enroll request made (required)")
	c.Flags().StringVarP(&out, "output", "o", "", "file to write (default: NAME.updraft)")
	c.Flags().BoolVar(&replace, "replace", false, "replace the file of the same device, and the key in it")
	required(c, "key")
	return c
}

// replaceable fails if out is there, unless it is the enrollment of the device name and may says that it may go.
func replaceable(out, name string, may func(old *identity.Enrollment) bool) error {
	b, err := readLimited(out, identity.MaxEnrollment)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		if old, err := identity.ParseEnrollment(b); err == nil && old.Name == name && may(old) {
			return nil
		}
	}
	return hinted{fmt.Errorf("%s exists", out), "name another file, or remove it first; with --replace the file of the same device is replaced"}
}

// readLimited reads a file that is at most limit bytes long.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is longer than %d bytes: not the file that is wanted here", path, limit)
	}
	return b, err
}
