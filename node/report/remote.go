package report

import (
	"encoding/json"
	"errors"
	"fmt"
)

// MaxStatus bounds the status of another device, in bytes of JSON.
const MaxStatus = 1 << 20

// ErrStatus reports bytes that are no status.
var ErrStatus = errors.New("report: not a status")

// Encode returns the status as JSON.
func (s Status) Encode() ([]byte, error) {
	s.Format = StatusFormat
	return json.Marshal(s)
}

// ParseStatus reads what another device encoded, of the same format. It says what that
// device says, in whatever characters.
func ParseStatus(b []byte) (*Status, error) {
	if len(b) > MaxStatus {
		return nil, fmt.Errorf("%w: %d bytes", ErrStatus, len(b))
	}
	s := new(Status)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStatus, err)
	}
	if s.Format != StatusFormat {
		return nil, fmt.Errorf("%w: format %d, this program knows %d", ErrStatus, s.Format, StatusFormat)
	}
	return s, nil
}
