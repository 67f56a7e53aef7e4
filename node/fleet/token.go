package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"updraft/delta/release"
	"updraft/node/identity"
)

// maxTokenUses bounds the devices of one token.
const maxTokenUses = 10_000

// TokenOptions says what a token is good for.
type TokenOptions struct {
	Uses   int           // devices, 1 or more
	TTL    time.Duration // how long it is good for; above 0
	Device EnrollOptions // what they are made as. Type: the only one, empty: any; no Name, Request nor Replace
}

// Token is a token that was given out. The secret is not in it.
type Token struct {
	ID      string     `json:"id"`
	Public  []byte     `json:"public"`
	Created int64      `json:"created"` // unix seconds
	Expires int64      `json:"expires"` // unix seconds
	Uses    int        `json:"uses"`    // devices, at most
	Used    []TokenUse `json:"used"`

	Type      string        `json:"type,omitempty"` // the only one; empty: any
	Site      string        `json:"site"`
	Channel   string        `json:"channel"`
	Roles     []string      `json:"roles"`
	Origins   []string      `json:"origins,omitempty"`
	Peers     []string      `json:"peers,omitempty"`
	Bootstrap []string      `json:"bootstrap,omitempty"`
	Validity  time.Duration `json:"validity,omitempty"` // of certificates, nanoseconds
}

// TokenUse is a device that came with a token.
type TokenUse struct {
	Name string `json:"name"`
	Peer string `json:"peer"`
	At   int64  `json:"at"` // unix seconds
}

// CreateToken makes a token and returns its secret, which is kept nowhere here.
func (f *Fleet) CreateToken(o TokenOptions) (secret string, t *Token, err error) {
	d := o.Device
	if d.Name != "" || len(d.Request) > 0 || d.Replace {
		return "", nil, fmt.Errorf("%w: a token is for devices that are not known yet", ErrOptions)
	}
	if o.Uses < 1 || o.Uses > maxTokenUses || o.TTL <= 0 {
		return "", nil, fmt.Errorf("%w: a token for %d devices, for %v", ErrOptions, o.Uses, o.TTL)
	}
	only := d.Type
	d.complete()
	d.Name = "any"
	if err := d.check(); err != nil {
		return "", nil, err
	}
	key, err := identity.NewToken()
	if err != nil {
		return "", nil, err
	}
	now := f.now()
	t = &Token{ID: identity.TokenID(key.Public()), Public: key.Public(), Created: now.Unix(), Expires: now.Add(o.TTL).Unix(), Uses: o.Uses,
		Used: []TokenUse{}, Type: only, Site: d.Site, Channel: d.Channel, Roles: roles(d), Origins: d.Origins, Peers: d.Peers,
		Bootstrap: d.Bootstrap, Validity: d.TTL}
	err = f.locked(func() error {
		if err := os.MkdirAll(f.path("tokens"), 0o700); err != nil {
			return err
		}
		return f.writeToken(t)
	})
	if err != nil {
		return "", nil, err
	}
	return key.Secret(), t, nil
}

// Tokens lists the tokens given out, the first to expire first.
func (f *Fleet) Tokens() ([]*Token, error) {
	entries, err := os.ReadDir(f.path("tokens"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []*Token
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		t, err := f.token(id)
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	slices.SortStableFunc(list, func(a, b *Token) int { return int(max(-1, min(1, a.Expires-b.Expires))) })
	return list, nil
}

// RevokeToken makes tokens unknown. Devices that came with them stay.
func (f *Fleet) RevokeToken(ids ...string) error {
	return f.locked(func() error {
		for _, id := range ids {
			if _, err := f.token(id); err != nil {
				return err
			}
			if err := os.Remove(f.path("tokens", id+".json")); err != nil {
				return err
			}
		}
		return release.SyncDir(f.path("tokens"))
	})
}

// Approve makes a device of the fleet from a request that was signed with a token, as
// the token says. Each device counts once, however often its request comes, and before
// it is answered, so that a power cut gives no use away. Requests that cannot be are
// ErrTokenUnknown, ErrTokenExpired, ErrTokenUsed, ErrTokenType, ErrExists if the name or the
// key is another device's (the key: ErrOtherName as well), and identity.ErrRevoked if either is of one that is revoked.
func (f *Fleet) Approve(request []byte) (e *identity.Enrollment, err error) {
	r, err := identity.ParseRequest(request)
	if err != nil {
		return nil, err
	}
	if r.Token == nil {
		return nil, fmt.Errorf("%w: the request of %s has none", ErrTokenUnknown, r.Name)
	}
	err = f.locked(func() error {
		e, err = f.approve(r)
		return err
	})
	return e, err
}

func (f *Fleet) approve(r *identity.Request) (*identity.Enrollment, error) {
	t, err := f.token(identity.TokenID(r.Token))
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(t.Public, r.Token) {
		return nil, fmt.Errorf("%w: %s", ErrTokenUnknown, t.ID)
	}
	if end := time.Unix(t.Expires, 0); !f.now().Before(end) {
		return nil, fmt.Errorf("%w: %s, on %s", ErrTokenExpired, t.ID, end.UTC().Format(time.RFC3339))
	}
	if t.Type != "" && t.Type != r.Type {
		return nil, fmt.Errorf("%w: %s is for %s, %s is a %s", ErrTokenType, t.ID, t.Type, r.Name, r.Type)
	}
	list, err := f.Revocations()
	if err != nil {
		return nil, err
	}
	if gone, ok := list.Find(r.Name); ok { // who was taken out does not come back by itself
		return nil, gone.Err()
	}
	id := r.Peer.String()
	d, err := f.device(r.Name)
	if err == nil && d.Peer != id {
		return nil, fmt.Errorf("%w: device %s, with another key", ErrExists, r.Name)
	}
	if errors.Is(err, ErrUnknown) {
		err = f.otherName(r.Name, id, list)
	}
	if err != nil {
		return nil, err
	}
	o := EnrollOptions{Name: r.Name, Type: r.Type, Site: t.Site, Channel: t.Channel, Roles: t.Roles, Origins: t.Origins, Peers: t.Peers,
		Bootstrap: t.Bootstrap, TTL: t.Validity, Replace: true}
	if err := o.check(); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(t.Used, func(u TokenUse) bool { return u.Peer == id })
	switch {
	case i >= 0 && t.Used[i].Name != r.Name:
		return nil, fmt.Errorf("%w: the key of %s came as %s before", ErrExists, r.Name, t.Used[i].Name)
	case i < 0 && len(t.Used) >= t.Uses:
		return nil, fmt.Errorf("%w: %s, by %d devices", ErrTokenUsed, t.ID, len(t.Used))
	case i < 0:
		t.Used = append(t.Used, TokenUse{r.Name, id, f.now().Unix()})
		if err := f.writeToken(t); err != nil {
			return nil, err
		}
	}
	return f.enroll(o, r.Peer, nil)
}

// otherName refuses for name a key that another device has, or had: under a second name it
// would not be revoked with the first, and one's renewals would take the place of the other's.
func (f *Fleet) otherName(name, peer string, revoked identity.Revocations) error {
	devices, err := f.Devices()
	if err != nil {
		return err
	}
	for _, d := range devices {
		if d.Name == name || d.Peer != peer && !slices.Contains(d.Former, peer) {
			continue
		}
		if gone, ok := revoked.Find(d.Name); ok {
			return fmt.Errorf("%w, %s's: %w", ErrOtherName, d.Name, gone.Err())
		}
		return fmt.Errorf("%w, %s's: %w", ErrOtherName, d.Name, ErrExists)
	}
	return nil
}

func (f *Fleet) token(id string) (*Token, error) {
	if identity.CheckName(id) != nil {
		return nil, fmt.Errorf("%w: %.40q", ErrTokenUnknown, id)
	}
	path := f.path("tokens", id+".json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrTokenUnknown, id)
	}
	if err != nil {
		return nil, err
	}
	t := new(Token)
	if err := json.Unmarshal(b, t); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

func (f *Fleet) writeToken(t *Token) error {
	b, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	return identity.WriteSecret(filepath.Join(f.path("tokens"), t.ID+".json"), append(b, '\n'))
}
