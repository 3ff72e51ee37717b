package salt

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// keyBits is Salt's least; a Pi 3 makes more of them slowly.
const keyBits = 2048

// Keys makes a minion's key pair, unless there is one, where a salt-minion looks for it. It returns the public key in PEM,
// which the master has to know before the minion asks it.
func Keys(d Dirs) (public string, err error) {
	dir := filepath.Join(d.Etc, "pki/minion")
	if text, err := os.ReadFile(filepath.Join(dir, "minion.pub")); err == nil {
		return string(text), nil
	}
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return "", fmt.Errorf("the minion's key cannot be made: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return "", fmt.Errorf("the minion's key cannot be written: %w", err)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	// The public key comes last: where it is, its private one is too.
	err = errors.Join(
		os.MkdirAll(dir, 0o700),
		os.WriteFile(filepath.Join(dir, "minion.pem"), private, 0o400),
		os.WriteFile(filepath.Join(dir, "minion.pub"), text, 0o644))
	if err != nil {
		return "", fmt.Errorf("the minion's key cannot be written: %w", err)
	}
	return string(text), nil
}
