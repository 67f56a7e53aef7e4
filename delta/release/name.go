package release

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// AnyType is the device type of a release that fits every device.
const AnyType = "any"

const (
	maxName     = 64  // bytes of a version, a device type, or one part of a channel
	maxParts    = 3   // parts of a channel
	maxFileName = 255 // bytes of an artifact's name
)

// TargetName is the name under which the manifest for a channel and a device type
// is signed: "<channel>/<type>". The empty type is AnyType.
func TargetName(channel, typ string) string {
	if typ == "" {
		typ = AnyType
	}
	return channel + "/" + typ
}

// CheckChannel reports whether channel may name a channel: one to three parts
// joined by "/", each of 1 to 64 bytes from a-z 0-9 . _ - that begins with a
// letter or digit. The names of the TUF roles are reserved, and "revoked".
func CheckChannel(channel string) error {
	parts := strings.Split(channel, "/")
	if len(parts) > maxParts {
		return fmt.Errorf("%w: channel %.80q has more than %d parts", ErrName, channel, maxParts)
	}
	for _, p := range parts {
		if !plain(p, "._-", false) {
			return fmt.Errorf("%w: channel %.80q: use a-z 0-9 . _ -, at most %d bytes a part", ErrName, channel, maxName)
		}
	}
	switch channel {
	case "root", "targets", "snapshot", "timestamp", revokedRole:
		return fmt.Errorf("%w: channel %q is reserved", ErrName, channel)
	}
	return nil
}

// CheckType reports whether typ may name a device type: 1 to 64 bytes from A-Z
// a-z 0-9 . _ - that begin with a letter or digit, and not AnyType.
func CheckType(typ string) error {
	if !plain(typ, "._-", true) {
		return fmt.Errorf("%w: device type %.80q: use A-Z a-z 0-9 . _ -, at most %d bytes", ErrName, typ, maxName)
	}
	if typ == AnyType {
		return fmt.Errorf("%w: device type %q is reserved", ErrName, typ)
	}
	return nil
}

// CheckVersion reports whether version may name a version: 1 to 64 bytes from A-Z
// a-z 0-9 . _ + ~ - that begin with a letter or digit. It is safe as a file name.
func CheckVersion(version string) error {
	if !plain(version, "._+~-", true) {
		return fmt.Errorf("%w: version %.80q: use A-Z a-z 0-9 . _ + ~ -, at most %d bytes", ErrName, version, maxName)
	}
	return nil
}

// checkFile accepts what can be one element of a path.
func checkFile(name string) error {
	bad := name == "" || name == "." || name == ".." || len(name) > maxFileName ||
		!utf8.ValidString(name) || strings.HasPrefix(name, ".updraft")
	for _, r := range name {
		bad = bad || r == '/' || r == '\\' || r < 0x20 || r == 0x7f
	}
	if bad {
		return fmt.Errorf("%w: artifact %.80q", ErrName, name)
	}
	return nil
}

func plain(s, marks string, upper bool) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || upper && c >= 'A' && c <= 'Z'
		if !alnum && (i == 0 || !strings.Contains(marks, string(rune(c)))) {
			return false
		}
	}
	return true
}
