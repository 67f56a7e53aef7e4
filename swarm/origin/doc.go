// Package origin reads a published tree over a thin, unreliable uplink, and serves
// one.
//
// An origin is a tree of plain files: any web server, bucket, directory or stick
// holds it. Names are slash-separated paths below its root. What lies below
// packs/, patches/, index/ and maps/ is named by its digest and never changes; the
// rest (signed metadata) is small and asked for conditionally.
//
// Client.Ranges fetches many pieces of one object with few requests: pieces at
// most 16 KiB apart travel in one request, a long row of pieces is one request
// whose body is handed on as it streams, and while it does, the next requests are
// under way, on a few more connections when pieces are small and far apart. From an
// origin that is far away (200 ms and more to an answer) several connections bring a long
// row together, made before they are needed (Client.Warm): one alone would take many
// round trips to find the rate of the link. They take pieces in order, each as long as
// suits the rate that is measured; where a link is slow, two are left, and one range
// after the other is complete. Over HTTPS all connections to a host resume the session of
// the first. A broken connection costs only what was in flight: the next attempt asks for
// the first byte that has not come.
//
// A server that knows no ranges, and sends the whole object, does for whole objects that
// come in one go, and for what lies in their first MiB. For more it is ErrNoRanges: the
// device would take much that it does not need.
//
// Everything an origin says is checked: the range that comes must be the one that
// was asked for, of an object of the expected size, and complete. The client does
// not know digests: who asks verifies the bytes, and tells when they are wrong
// (Client.Distrust). Of several origins one that is right is enough.
//
// Errors are of three kinds: ErrNotFound (the origin works and has no such
// object), ErrChanged (it has something else under that name), ErrUnreachable
// (no usable answer after retries; another time or another device may do better).
package origin

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

var (
	// ErrNotFound reports that the origin has no object of that name.
	ErrNotFound = errors.New("origin: not found")
	// ErrUnreachable reports that no origin gave a usable answer: no route,
	// refused, timed out, next to nothing coming, broken off again and again, or a
	// server error.
	ErrUnreachable = errors.New("origin: unreachable")
	// ErrNoRanges reports an origin that sends the whole object in answer to a request for
	// a part far from its beginning. It is ErrUnreachable.
	ErrNoRanges = fmt.Errorf("%w: it does not support Range requests, as an origin must", ErrUnreachable)
	// ErrChanged reports an object that is not of the expected size, so it is not
	// the one that was published.
	ErrChanged = errors.New("origin: object is not what was published")
	// ErrTooLarge reports an object above the limit given to Get.
	ErrTooLarge = errors.New("origin: object above the limit")
	// ErrRange reports ranges that are not ascending, empty, too long or outside
	// the object.
	ErrRange = errors.New("origin: bad range")
	// ErrName reports a name that is not a clean relative path.
	ErrName = errors.New("origin: bad name")
)

// immutable reports whether the object of this name is named by its digest.
func immutable(name string) bool {
	dir, _, ok := strings.Cut(name, "/")
	if !ok {
		return false
	}
	switch dir {
	case "packs", "patches", "index", "maps":
		return true
	}
	return false
}

// optional reports whether an origin that lacks the object of this name most likely lacks
// nothing: the root after the last one, a bundle that was not made, a certificate that was
// not renewed. Asking the others for it each time would be for nothing.
func optional(name string) bool {
	dir, file := path.Split(name)
	return dir == "renewals/" || dir == "metadata/" && (strings.HasSuffix(file, ".root.json") || strings.HasSuffix(file, ".bundle"))
}

// validName accepts what both a URL and a directory can take literally.
func validName(name string) error {
	if !fs.ValidPath(name) || name == "." || strings.ContainsAny(name, "\\\x00") || len(name) > 1024 {
		return fmt.Errorf("%w: %q", ErrName, name)
	}
	return nil
}
