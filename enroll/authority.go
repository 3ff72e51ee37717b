// Package enroll decides who may join. The Authority issues what a node is known by: certificates for TLS, certificates
// for SSH host keys, and the token of one boot. The Desk says to whom. Who has joined, waits or is frozen is in no store
// of its own: it follows from the events, as all of a node's state does.
package enroll

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"

	"bramble/node"
)

// File is the authority's file in its folder: the keys that everything else hangs on.
const File = "authority.pem"

// Types of the PEM blocks in File.
const (
	certBlock  = "CERTIFICATE"
	caBlock    = "BRAMBLE CA PRIVATE KEY"
	sshBlock   = "BRAMBLE SSH CA PRIVATE KEY"
	tokenBlock = "BRAMBLE TOKEN KEY"
)

var (
	begin = time.Unix(0, 0).UTC() // a board without a clock lives in 1970
	never = time.Date(2049, 12, 31, 0, 0, 0, 0, time.UTC)
)

// Authority is an appliance's CA for TLS, its CA for SSH host keys, and the key of its tokens.
type Authority struct {
	cert  *x509.Certificate
	key   crypto.Signer
	ssh   ssh.Signer
	token []byte
}

// Open reads the authority in dir. It is made at the first start, readable by its owner alone, as one file: all of it or
// nothing. Nodes and known_hosts files know it by its keys, so it has to survive.
func Open(dir string) (*Authority, error) {
	path := filepath.Join(dir, File)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if data, err = found(); err == nil {
			err = writePrivate(path, data)
		}
	}
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("the appliance has no keys to enroll nodes with: %w", err)
	}
	a, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("the keys in %s are damaged; bring the file back from a backup, or delete it: then known_hosts files need the new line, and nodes a power cycle: %w", path, err)
	}
	return a, nil
}

// found makes the keys of a new authority.
func found() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	shape := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "bramble CA"}, NotBefore: begin, NotAfter: never,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, shape, shape, key.Public(), key)
	if err != nil {
		return nil, err
	}
	_, host, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	caKey, err1 := x509.MarshalPKCS8PrivateKey(key)
	sshKey, err2 := x509.MarshalPKCS8PrivateKey(host)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	token := make([]byte, 32)
	_, _ = rand.Read(token) // never fails
	var out []byte
	for _, b := range []pem.Block{{Type: certBlock, Bytes: cert}, {Type: caBlock, Bytes: caKey}, {Type: sshBlock, Bytes: sshKey}, {Type: tokenBlock, Bytes: token}} {
		out = append(out, pem.EncodeToMemory(&b)...)
	}
	return out, nil
}

func parse(data []byte) (*Authority, error) {
	blocks := map[string][]byte{}
	for b, rest := pem.Decode(data); b != nil; b, rest = pem.Decode(rest) {
		blocks[b.Type] = b.Bytes
	}
	cert, err := x509.ParseCertificate(blocks[certBlock])
	if err != nil {
		return nil, fmt.Errorf("CA certificate: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(blocks[caBlock])
	if err != nil {
		return nil, fmt.Errorf("CA key: %w", err)
	}
	ca, ok := key.(*ecdsa.PrivateKey)
	if !ok || !ca.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the CA's key is not that of its certificate")
	}
	host, err := x509.ParsePKCS8PrivateKey(blocks[sshBlock])
	if err != nil {
		return nil, fmt.Errorf("SSH CA key: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(host)
	if err != nil {
		return nil, fmt.Errorf("SSH CA key: %w", err)
	}
	if len(blocks[tokenBlock]) < 32 {
		return nil, errors.New("the token key is missing or too short")
	}
	return &Authority{cert: cert, key: ca, ssh: signer, token: blocks[tokenBlock]}, nil
}

// CertPEM is the CA's certificate; it is public.
func (a *Authority) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: a.cert.Raw})
}

// Pin is the SHA-256 of the CA's certificate (DER) in hex: wire.PinWord on a node's command line.
func (a *Authority) Pin() string {
	sum := sha256.Sum256(a.cert.Raw)
	return hex.EncodeToString(sum[:])
}

// Pool is what certificates of nodes are checked against.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// ServerCert makes a certificate for the appliance's own HTTPS server, with the CA's behind it, so that a client which
// knows only the pin can check it. Its key is new every time and never leaves memory.
func (a *Authority) ServerCert(names []string, addrs []net.IP) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "bramble"}, DNSNames: names, IPAddresses: addrs, NotBefore: begin, NotAfter: never,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, key.Public())
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("the certificate of the HTTPS server cannot be made: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func (a *Authority) sign(shape *x509.Certificate, public crypto.PublicKey) (*x509.Certificate, error) {
	shape.SerialNumber, shape.KeyUsage, shape.BasicConstraintsValid = serial(), x509.KeyUsageDigitalSignature, true
	der, err := x509.CreateCertificate(rand.Reader, shape, a.cert, public, a.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Token is what one boot of one board shows to be enrolled: the same for every rendering of its cmdline.txt, and of no
// use for another boot.
func (a *Authority) Token(mac node.MAC, boot node.BootID) string {
	mine := hmac.New(sha256.New, a.token)
	fmt.Fprintf(mine, "bramble token 1\n%s\n%s\n", mac, boot)
	return words.EncodeToString(mine.Sum(nil)[:20])
}

func (a *Authority) tokenIs(token string, mac node.MAC, boot node.BootID) bool {
	return hmac.Equal([]byte(token), []byte(a.Token(mac, boot)))
}

func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[0] = b[0]&0x3f | 0x40
	return new(big.Int).SetBytes(b[:])
}

// writePrivate writes a file that only its owner may read: all of it or nothing, and on the disk when it returns.
func writePrivate(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("the directory of %s cannot be made: %w", path, err)
	}
	f, err := os.CreateTemp(dir, ".new-*") // has mode 0600
	if err != nil {
		return fmt.Errorf("%s cannot be written: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("%s cannot be written: %w", path, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
