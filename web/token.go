package web

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// LoadOrMakeToken returns the admin token in the file path, which is made at the first start, readable by its owner
// only. Whoever has the token may change things over the API.
func LoadOrMakeToken(path string) (string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		token := rand.Text()
		return token, writePrivate(path, []byte(token+"\n"))
	}
	if err != nil {
		return "", fmt.Errorf("the admin token cannot be read: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if len(token) < 20 || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("the admin token in %s is not one word of at least 20 characters; delete the file to have a new one made", path)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return "", fmt.Errorf("the admin token cannot be kept private: %w", err)
	}
	return token, nil
}

// writePrivate writes a file that only its owner may read: all of it or nothing.
func writePrivate(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("the directory of %s cannot be made: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // has mode 0600
	if err != nil {
		return fmt.Errorf("%s cannot be written: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("%s cannot be written: %w", path, err)
	}
	return nil
}
