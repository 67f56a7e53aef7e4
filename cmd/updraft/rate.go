package main

import (
	"fmt"
	"strconv"
	"strings"
)

// parseRate reads a rate as tc writes it (20mbit, 5gbit, 800kbit: bits per second;
// 2500000 or 2.5MB: bytes) and returns bytes per second. 0 is unlimited.
func parseRate(s string) (int64, error) {
	units := []struct {
		suffix string
		bytes  float64
	}{
		{"gbit", 1e9 / 8}, {"mbit", 1e6 / 8}, {"kbit", 1e3 / 8}, {"bit", 1.0 / 8},
		{"gb", 1e9}, {"mb", 1e6}, {"kb", 1e3}, {"", 1},
	}
	t := strings.TrimSuffix(strings.ToLower(strings.TrimSpace(s)), "/s")
	for _, u := range units {
		n, ok := strings.CutSuffix(t, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(n), 64)
		if err != nil || !(v >= 0 && v*u.bytes < 1e15) { // the negation refuses NaN as well
			break
		}
		return int64(v * u.bytes), nil
	}
	return 0, fmt.Errorf("%q is no rate: write 20mbit, 1gbit or bytes per second", s)
}
