package dhcp

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// leaseFile keeps leases across restarts: one JSON object a line, the last line about an address counts. Appending
// survives a kill -9 at once and a power cut after the next sync; a torn last line is dropped.
type leaseFile struct {
	path  string
	f     *os.File
	lines int
}

// readLeases returns the file's leases in the order written; no file means none.
func readLeases(path string) ([]lease, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the lease file: %w", err)
	}
	return parseLeases(b), nil
}

// parseLeases skips what is no lease: such lines come from a crash, and a lost lease is repaired by asking for it.
func parseLeases(b []byte) []lease {
	var leases []lease
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		var l lease
		if json.Unmarshal(lines.Bytes(), &l) == nil && l.Addr.Is4() && !l.MAC.IsZero() {
			leases = append(leases, l)
		}
	}
	return leases
}

// rewrite replaces the file by one with these leases only: all or nothing.
func (lf *leaseFile) rewrite(leases []lease) error {
	tmp, err := os.CreateTemp(filepath.Dir(lf.path), filepath.Base(lf.path)+".*")
	if err != nil {
		return fmt.Errorf("cannot write the lease file: %w", err)
	}
	err = appendTo(tmp, leases)
	if err == nil {
		err = os.Rename(tmp.Name(), lf.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cannot write the lease file: %w", err), tmp.Close(), os.Remove(tmp.Name()))
	}
	if lf.f != nil {
		_ = lf.f.Close() // synced, and replaced
	}
	lf.f, lf.lines = tmp, len(leases)
	return syncDir(filepath.Dir(lf.path))
}

func (lf *leaseFile) append(leases []lease) error {
	if err := appendTo(lf.f, leases); err != nil {
		return fmt.Errorf("cannot write the lease file: %w", err)
	}
	lf.lines += len(leases)
	return nil
}

func appendTo(f *os.File, leases []lease) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, l := range leases {
		if err := enc.Encode(l); err != nil {
			return err
		}
	}
	if _, err := f.Write(b.Bytes()); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot open the lease file's folder: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
