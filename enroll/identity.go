package enroll

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base32"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"bramble/firstboot/wire"
	"bramble/node"
)

const (
	life    = 24 * time.Hour     // of a node's certificate for TLS
	hostFor = 7 * 24 * time.Hour // of an SSH host certificate: an appliance that is away for a night must lock nobody out
	// A certificate begins before it is made: the appliance's clock may be set back when it finds the right time. The
	// agent renews after two thirds of the whole, which is twelve hours from now.
	early = 12 * time.Hour
)

// Bounds of a request's parts, bytes.
const (
	maxCSR    = 8 << 10
	maxSSHKey = 4 << 10
)

var words = base32.StdEncoding.WithPadding(base32.NoPadding)

// applicant is the checked part of an EnrollRequest.
type applicant struct {
	key   *ecdsa.PublicKey
	print [32]byte // SHA-256 of the key in the form of PKIX
	host  ssh.PublicKey
}

// Code is what an admin compares: the first 40 bits of the key's SHA-256.
func (p applicant) code() string {
	w := words.EncodeToString(p.print[:5])
	return w[:4] + "-" + w[4:]
}

// fingerprint is what the timeline shows of a key.
func (p applicant) fingerprint() string {
	return "SHA-256 of the key: " + hex.EncodeToString(p.print[:])
}

// Code is what an admin compares before a node may join: the first 40 bits of the SHA-256 of its public key, from a CSR
// in PEM, as "4K7Q-2MXD".
func Code(csr string) (string, error) {
	var p applicant
	err := p.readCSR(csr)
	return p.code(), err
}

// read checks all of a request that does not depend on who sent it.
func read(r wire.EnrollRequest) (applicant, error) {
	var p applicant
	if err := p.readCSR(r.CSR); err != nil {
		return p, err
	}
	return p, p.readHost(r.SSHKey)
}

func (p *applicant) readCSR(text string) error {
	if len(text) > maxCSR {
		return fmt.Errorf("the certificate request is larger than %d bytes", maxCSR)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE REQUEST" || strings.TrimSpace(string(rest)) != "" {
		return errors.New("the certificate request is not one block of PEM of the type CERTIFICATE REQUEST")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return fmt.Errorf("the certificate request cannot be read: %w", err)
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return errors.New("the certificate request is not for an ECDSA key on the curve P-256")
	}
	if err := csr.CheckSignature(); err != nil {
		return fmt.Errorf("the certificate request is not signed with its own key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return fmt.Errorf("the certificate request has a strange key: %w", err)
	}
	p.key, p.print = key, sha256.Sum256(der)
	return nil
}

func (p *applicant) readHost(line string) error {
	if len(line) > maxSSHKey {
		return fmt.Errorf("the SSH host key is larger than %d bytes", maxSSHKey)
	}
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil || strings.TrimSpace(string(rest)) != "" {
		return errors.New("the SSH host key is not one line as in ssh_host_ed25519_key.pub")
	}
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
	case ssh.KeyAlgoRSA:
		if k, ok := key.(ssh.CryptoPublicKey).CryptoPublicKey().(*rsa.PublicKey); !ok || k.N.BitLen() < 2048 {
			return errors.New("the SSH host key is an RSA key of less than 2048 bits")
		}
	default:
		return fmt.Errorf("SSH host keys of the type %q are not certified", key.Type())
	}
	p.host = key
	return nil
}

// checkMinion checks a Salt minion's public key.
func checkMinion(text string) error {
	block, rest := pem.Decode([]byte(text))
	if len(text) > maxCSR || block == nil || block.Type != "PUBLIC KEY" || strings.TrimSpace(string(rest)) != "" {
		return errors.New("the minion's key is not one block of PEM of the type PUBLIC KEY")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if k, ok := key.(*rsa.PublicKey); err != nil || !ok || k.N.BitLen() < 2048 {
		return errors.New("the minion's key is not an RSA key of at least 2048 bits")
	}
	return nil
}

// issue makes both certificates of a node.
func (a *Authority) issue(s node.State, p applicant, addr netip.Addr, now time.Time) (wire.EnrollAnswer, error) {
	leaf, err := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: s.Name}, URIs: []*url.URL{id(s.MAC, s.Boot)},
		NotBefore: now.Add(-early), NotAfter: now.Add(life), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, p.key)
	if err != nil {
		return wire.EnrollAnswer{}, fmt.Errorf("the certificate of %s cannot be made: %w", s.Name, err)
	}
	host, err := a.hostCert(s, p.host, addr, now)
	if err != nil {
		return wire.EnrollAnswer{}, fmt.Errorf("the SSH host certificate of %s cannot be made: %w", s.Name, err)
	}
	return wire.EnrollAnswer{
		Name: s.Name, Cert: string(pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: leaf.Raw})), SSHCert: host, NotAfter: leaf.NotAfter,
	}, nil
}

// hostCert certifies a host key for the names by which people reach the node.
func (a *Authority) hostCert(s node.State, key ssh.PublicKey, addr netip.Addr, now time.Time) (string, error) {
	names := []string{s.Name, s.Name + ".local"}
	if addr.IsValid() {
		names = append(names, addr.String())
	}
	cert := &ssh.Certificate{
		Key: key, CertType: ssh.HostCert, Serial: serial().Uint64(), KeyId: fmt.Sprintf("%s %s %s", s.Name, s.MAC, s.Boot), ValidPrincipals: names,
		ValidAfter: 1, ValidBefore: uint64(now.Add(hostFor).Unix()), // from 1970: an admin's clock may be wrong, too; 0 is "no beginning" to some
	}
	if err := cert.SignCert(rand.Reader, a.ssh); err != nil {
		return "", err
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(cert))) + " " + s.Name + "\n", nil
}

// KnownHostsLine makes ssh trust every host key that this appliance certified, for hosts that match pattern ("*": all).
func (a *Authority) KnownHostsLine(pattern string) string {
	return fmt.Sprintf("@cert-authority %s %s bramble", pattern, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(a.ssh.PublicKey()))))
}

// id is how a certificate names its node and boot.
func id(mac node.MAC, boot node.BootID) *url.URL {
	return &url.URL{Scheme: "bramble", Host: "node", Path: "/" + mac.String() + "/" + string(boot)}
}

// Identity is the node and boot that a certificate names. The certificate has been verified before.
func Identity(cert *x509.Certificate) (node.MAC, node.BootID, error) {
	for _, u := range cert.URIs {
		word, boot, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
		if mac, err := node.ParseMAC(word); ok && err == nil && boot != "" && u.Scheme == "bramble" && u.Host == "node" {
			return mac, node.BootID(boot), nil
		}
	}
	return node.MAC{}, "", errors.New("the certificate names no node")
}
