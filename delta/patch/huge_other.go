//go:build !linux

package patch

func huge[T any]([]T) {}
