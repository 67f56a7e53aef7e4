package testnet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Digest identifies what is at path, independently of the program under test: the
// sha2-256 of a file's bytes, or of a directory's sorted list of names, kinds,
// permissions, link targets and contents. A link at path itself is followed.
func Digest(path string) (string, error) {
	h := sha256.New()
	st, err := os.Stat(path)
	if err == nil && !st.IsDir() {
		err = hashFile(h, path)
	} else if err == nil {
		err = hashTree(h, path)
	}
	if err != nil {
		return "", fmt.Errorf("testnet: digest: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func hashFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	_, err = io.Copy(w, f)
	return err
}

func hashTree(h hash.Hash, dir string) error {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		mode, content := st.Mode(), ""
		switch {
		case mode.IsRegular():
			sum := sha256.New()
			if err := hashFile(sum, path); err != nil {
				return err
			}
			content = hex.EncodeToString(sum.Sum(nil))
		case mode&fs.ModeSymlink != 0:
			mode = fs.ModeSymlink // its permissions mean nothing
			if content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		fmt.Fprintf(h, "%q %v %q\n", rel, mode, content)
		return nil
	})
}
