package tree

import "fmt"

// Unchanged walks the tree below dir again, after it was read, and returns an error that wraps ErrChanged and
// names the first entry that is not as listed by [Walk] before. What leaves size and time of modification as
// they were is not noticed.
func (l *Listing) Unchanged(dir string) error {
	now, err := Walk(dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	for i, e := range l.Entries {
		if i == len(now.Entries) || now.Entries[i] != e {
			return fmt.Errorf("%w: %s has changed since, or what is beside it", ErrChanged, e.Path)
		}
	}
	if more := now.Entries[len(l.Entries):]; len(more) > 0 {
		return fmt.Errorf("%w: %s has come since", ErrChanged, more[0].Path)
	}
	return nil
}
