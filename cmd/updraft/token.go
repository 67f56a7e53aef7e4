package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"updraft/node/fleet"
	"updraft/node/identity"
)

// maxTokenFile bounds what is read as a token, in bytes.
const maxTokenFile = 256

const tokenLong = `A token lets devices join without anybody looking at each: who has it may ask for so many
certificates, for so long, for one site. The key of each device is made on it.
  at the fleet      updraft token create --fleet DIR --uses 20 --expires 72h --site SITE -o site.token
  on each device    updraft enroll request --name NAME --token site.token -o NAME.request
  at the fleet      updraft enroll approve --fleet DIR NAME.request   (makes NAME.answer)
  on each device    updraft enroll complete --key NAME.request.key NAME.answer -o NAME.updraft

A request does not hold the token: it is signed with it. Each device counts once, however
often its request comes.`

func newToken(u *ui) *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "Let devices join by themselves",
		Long:  tokenLong,
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newTokenCreate(u), newTokenList(u), newTokenRevoke(u))
	return c
}

func newTokenCreate(u *ui) *cobra.Command {
	var dir, out string
	var o fleet.TokenOptions
	c := &cobra.Command{
		Use:   "create --fleet DIR --uses N --expires DURATION",
		Short: "Make a token",
		Example: `  updraft token create --fleet fleet --uses 20 --expires 72h --site store-12 \
      --origin https://updates.example -o store-12.token`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			f, err := fleet.Open(dir, fleet.Options{})
			if err != nil {
				return err
			}
			if out != "" {
				if err := vacant(out); err != nil {
					return err
				}
			}
			secret, t, err := f.CreateToken(o)
			if err != nil {
				return err
			}
			v := map[string]any{"id": t.ID, "uses": t.Uses, "expires": time.Unix(t.Expires, 0).UTC(), "site": t.Site}
			if out != "" {
				if err := identity.WriteSecret(out, []byte(secret+"\n")); err != nil {
					return errors.Join(err, f.RevokeToken(t.ID))
				}
				v["file"] = out
				u.note("Token %s is in %s, which is to be kept secret.", t.ID, out)
			} else {
				v["token"] = secret
			}
			err = u.result(v, func(w io.Writer) {
				if out == "" {
					fmt.Fprintln(w, secret)
				}
			})
			if err != nil && out == "" { // nobody has it
				err = errors.Join(err, f.RevokeToken(t.ID))
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "fleet", "", "directory of the fleet (required)")
	f.IntVar(&o.Uses, "uses", 0, "devices that may join with it (required)")
	f.DurationVar(&o.TTL, "expires", 0, "how long it is good for, such as 72h (required)")
	f.StringVarP(&out, "output", "o", "", "file to write it to, mode 0600 (default: standard output)")
	deviceFlags(c, &o.Device)
	f.StringVar(&o.Device.Type, "type", "", "the type of device it is for (default: any)")
	required(c, "fleet", "uses", "expires")
	return c
}

func newTokenList(u *ui) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:     "list --fleet DIR",
		Short:   "List the tokens and who came with them",
		Example: "  updraft token list --fleet fleet",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			f, err := fleet.Open(dir, fleet.Options{})
			if err != nil {
				return err
			}
			list, err := f.Tokens()
			if err != nil {
				return err
			}
			return tokens(u, list)
		},
	}
	c.Flags().StringVar(&dir, "fleet", "", "directory of the fleet (required)")
	required(c, "fleet")
	return c
}

func tokens(u *ui, list []*fleet.Token) error {
	type row struct {
		ID      string    `json:"id"`
		Site    string    `json:"site"`
		Type    string    `json:"type,omitempty"`
		Expires time.Time `json:"expires"`
		Uses    int       `json:"uses"`
		Devices []string  `json:"devices"`
	}
	rows := []row{}
	text := [][]string{{"TOKEN", "SITE", "USED", "EXPIRES"}}
	for _, t := range list {
		r := row{t.ID, t.Site, t.Type, time.Unix(t.Expires, 0).UTC(), t.Uses, []string{}}
		for _, use := range t.Used {
			r.Devices = append(r.Devices, use.Name)
		}
		rows = append(rows, r)
		text = append(text, []string{t.ID, t.Site, fmt.Sprintf("%d of %d", len(t.Used), t.Uses), r.Expires.Format(time.RFC3339)})
	}
	return u.result(map[string]any{"tokens": rows}, func(w io.Writer) {
		if len(rows) == 0 {
			fmt.Fprintln(w, "There is no token.")
			return
		}
		table(w, text)
	})
}

func newTokenRevoke(u *ui) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:     "revoke --fleet DIR ID...",
		Short:   "Make tokens unknown; devices that came with them stay",
		Example: "  updraft token revoke --fleet fleet 5f2c9a1b00c4d7e8",
		Args:    usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, ids []string) error {
			f, err := fleet.Open(dir, fleet.Options{})
			if err != nil {
				return err
			}
			if err := f.RevokeToken(ids...); err != nil {
				return err
			}
			return u.result(map[string]any{"revoked": ids}, func(io.Writer) {})
		},
	}
	c.Flags().StringVar(&dir, "fleet", "", "directory of the fleet (required)")
	required(c, "fleet")
	return c
}

// token reads a token from a file, or from standard input for "-".
func (u *ui) token(path string) (*identity.Token, error) {
	if path != "-" {
		b, err := identity.ReadSecret(path, maxTokenFile)
		if err != nil {
			return nil, err
		}
		t, err := identity.ParseToken(string(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return t, nil
	}
	b, err := io.ReadAll(io.LimitReader(u.in, maxTokenFile))
	if err != nil {
		return nil, err
	}
	return identity.ParseToken(string(b))
}

func newEnrollApprove(u *ui) *cobra.Command {
	var dir, out string
	c := &cobra.Command{
		Use:     "approve --fleet DIR REQUEST...",
		Short:   "Answer requests that come with a token",
		Long:    "Answer the requests of devices that come with a token (updraft token), as the token\nsays. What cannot be approved does not keep the others back.",
		Example: "  updraft enroll approve --fleet fleet -o answers requests/*.request",
		Args:    usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, requests []string) error {
			f, err := fleet.Open(dir, fleet.Options{Keys: u.keys()})
			if err != nil {
				return err
			}
			answers, refused := []string{}, map[string]string{}
			var failed error
			for _, path := range requests {
				name, err := approve(f, path, out)
				if err != nil {
					failed = errors.Join(failed, fmt.Errorf("%s: %w", path, err))
					refused[path] = err.Error()
					continue
				}
				answers = append(answers, name)
			}
			return errors.Join(u.result(map[string]any{"answers": answers, "refused": refused}, func(w io.Writer) {
				for _, name := range answers {
					fmt.Fprintf(w, "%s: bring it to the device by a safe way.\n", name)
				}
			}), failed)
		},
	}
	c.Flags().StringVar(&dir, "fleet", "", "directory of the fleet (required)")
	c.Flags().StringVarP(&out, "output", "o", ".", "directory for the answers, NAME.answer")
	required(c, "fleet")
	return c
}

func approve(f *fleet.Fleet, path, out string) (string, error) {
	b, err := readLimited(path, identity.MaxRequest)
	if err != nil {
		return "", err
	}
	e, err := f.Approve(b)
	if err != nil {
		return "", err
	}
	name := filepath.Join(out, e.Name+".answer")
	return name, e.Write(name)
}
