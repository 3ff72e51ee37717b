package web

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
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
	"sync"
	"time"
)

// LoadOrMakeCert returns the certificate in the file path. It is made at the first start, signed by itself, for the
// given names and addresses, and then kept: clients know it by its fingerprint.
func LoadOrMakeCert(path string, names []string, addrs []net.IP) (tls.Certificate, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if data, err = makeCert(names, addrs); err == nil {
			err = writePrivate(path, data)
		}
	}
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("there is no certificate for TLS: %w", err)
	}
	cert, err := tls.X509KeyPair(data, data)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("the certificate in %s is damaged; delete the file to have a new one made, with a new fingerprint: %w", path, err)
	}
	return cert, nil
}

// certs is what the HTTPS server shows: a certificate of the authority's, made at the start and again for an address that
// this host got later; or, without an authority, one of its own.
type certs struct {
	authority Authority
	mu        sync.Mutex
	now       tls.Certificate
}

func (c *certs) open(authority Authority, file string) (err error) {
	c.authority = authority
	names, addrs := ownNames()
	if authority == nil {
		c.now, err = LoadOrMakeCert(filepath.Clean(file), names, addrs)
		return err
	}
	c.now, err = authority.ServerCert(names, addrs)
	return err
}

// pin is the fingerprint by which clients know this server.
func (c *certs) pin() string {
	if c.authority != nil {
		return c.authority.Pin()
	}
	return Fingerprint(c.now)
}

func (c *certs) config() *tls.Config {
	if c.authority == nil {
		return &tls.Config{Certificates: []tls.Certificate{c.now}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	}
	return &tls.Config{
		GetCertificate: c.get, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: c.authority.Pool(),
	}
}

func (c *certs) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	local, ok := hello.Conn.LocalAddr().(*net.TCPAddr)
	if ok && c.now.Leaf.VerifyHostname(local.IP.String()) != nil {
		names, addrs := ownNames()
		cert, err := c.authority.ServerCert(names, append(addrs, local.IP))
		if err != nil {
			return nil, err
		}
		c.now = cert
	}
	shown := c.now
	return &shown, nil
}

// Fingerprint is the SHA-256 of a certificate in hex.
func Fingerprint(cert tls.Certificate) string {
	sum := sha256.Sum256(cert.Certificate[0])
	return hex.EncodeToString(sum[:])
}

func makeCert(names []string, addrs []net.IP) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	shape := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "bramble"},
		DNSNames:     names,
		IPAddresses:  addrs,
		// The clock may be wrong when the certificate is made, and nobody renews it.
		NotBefore:             time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2049, 12, 31, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, shape, shape, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = errors.Join(pem.Encode(&out, &pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	return out.Bytes(), err
}

// ownNames are this host's names and addresses, for the certificate.
func ownNames() (names []string, addrs []net.IP) {
	names = []string{"localhost", "bramble", "bramble.local"}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host, host+".local")
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return names, nil
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
			addrs = append(addrs, n.IP)
		}
	}
	return names, addrs
}
