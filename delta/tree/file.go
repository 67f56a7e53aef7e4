package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// FileReader is a file, or a block device, as a stream of the size that it had when it was opened.
// Its methods may be called concurrently, but for Limit and Close.
type FileReader struct {
	f    *os.File
	was  fs.FileInfo
	size int64
}

// OpenFile opens what is at path, which is to be a regular file or a block device.
func OpenFile(path string) (*FileReader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	o := &FileReader{f, st, st.Size()}
	if o.device() {
		if o.size, err = f.Seek(0, io.SeekEnd); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return o, nil
}

func (f *FileReader) device() bool { return f.was.Mode().Type() == fs.ModeDevice }

// Info says how the file was when it was opened.
func (f *FileReader) Info() fs.FileInfo { return f.was }

// Size returns how many bytes the stream has.
func (f *FileReader) Size() int64 { return f.size }

// Limit makes the stream that of the first n bytes if it is a device, which may be longer than what is on it.
func (f *FileReader) Limit(n int64) {
	if f.device() {
		f.size = min(f.size, n)
	}
}

// ReadAt is [io.ReaderAt]'s. Where the file has become shorter it returns an error that wraps ErrChanged.
func (f *FileReader) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 || off >= f.size {
		return 0, io.EOF
	}
	want := min(int64(len(b)), f.size-off)
	n, err := f.f.ReadAt(b[:want], off)
	switch {
	case int64(n) < want && errors.Is(err, io.EOF):
		return n, fmt.Errorf("%w: %s is shorter", ErrChanged, f.f.Name())
	case err == nil && n < len(b):
		err = io.EOF
	}
	return n, err
}

// Close closes the file.
func (f *FileReader) Close() error { return f.f.Close() }

// Unchanged is [Listing.Unchanged] for a file; a device has never changed.
func (f *FileReader) Unchanged() error {
	if f.device() {
		return nil
	}
	now, err := os.Stat(f.f.Name())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	if !os.SameFile(now, f.was) || now.Size() != f.was.Size() || !now.ModTime().Equal(f.was.ModTime()) {
		return fmt.Errorf("%w: %s has been written since, or replaced", ErrChanged, f.f.Name())
	}
	return nil
}
