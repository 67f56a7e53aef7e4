package main

import (
	"fmt"
	"strconv"
	"strings"
)

// byteUnit is what a number stands for with a suffix.
type byteUnit struct {
	suffix string
	bytes  float64
}

var (
	rateUnits = []byteUnit{{"gbit", 1e9 / 8}, {"mbit", 1e6 / 8}, {"kbit", 1e3 / 8}, {"bit", 1.0 / 8}, {"gb", 1e9}, {"mb", 1e6}, {"kb", 1e3}, {"", 1}}
	sizeUnits = []byteUnit{{"gib", 1 << 30}, {"mib", 1 << 20}, {"kib", 1 << 10}, {"gb", 1e9}, {"mb", 1e6}, {"kb", 1e3}, {"", 1}}
)

// parseUnits reads a number of bytes with one of the units' suffixes, the first that fits.
func parseUnits(s string, units []byteUnit) (int64, bool) {
	for _, u := range units {
		n, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(n), 64)
		return int64(v * u.bytes), err == nil && v >= 0 && v*u.bytes < 1e15 // NaN is refused as well
	}
	return 0, false
}

// parseSize reads a size such as 256MiB, 1.5GB or 1000000 and returns bytes.
func parseSize(s string) (int64, error) {
	n, ok := parseUnits(strings.ToLower(strings.TrimSpace(s)), sizeUnits)
	if !ok {
		return 0, fmt.Errorf("%q is no size: write 256MiB, 1GB or bytes", s)
	}
	return n, nil
}

// parseRate reads a rate as tc writes it (20mbit, 5gbit, 800kbit: bits per second;
// 2500000 or 2.5MB: bytes) and returns bytes per second. 0 is unlimited.
func parseRate(s string) (int64, error) {
	n, ok := parseUnits(strings.TrimSuffix(strings.ToLower(strings.TrimSpace(s)), "/s"), rateUnits)
	if !ok {
		return 0, fmt.Errorf("%q is no rate: write 20mbit, 1gbit or bytes per second", s)
	}
	return n, nil
}

// sizeFlag is the value of a flag that takes a size.
type sizeFlag int64

// String is part of pflag.Value.
func (f *sizeFlag) String() string { return strconv.FormatInt(int64(*f), 10) }

// Set is part of pflag.Value.
func (f *sizeFlag) Set(s string) error {
	n, err := parseSize(s)
	*f = sizeFlag(n)
	return err
}

// Type is part of pflag.Value.
func (f *sizeFlag) Type() string { return "size" }
