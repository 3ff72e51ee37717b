package enroll

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"crypto/x509"
)

func TestAuthoritySurvives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "enroll")
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, File)
	if err := os.Chmod(path, 0o644); err != nil { // as a careless backup brings it back
		t.Fatal(err)
	}
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if a.Pin() != b.Pin() || a.Token(alpha, "a1") != b.Token(alpha, "a1") || a.KnownHostsLine("*") != b.KnownHostsLine("*") || !bytes.Equal(a.CertPEM(), b.CertPEM()) {
		t.Error("the second start has other keys")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s has the mode %v, %v; want 0600", path, info.Mode(), err)
	}
	if a.Token(alpha, "a1") == a.Token(alpha, "a2") || a.Token(alpha, "a1") == a.Token(beta, "a1") {
		t.Error("two boots have one token")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, data[:len(data)/2], bytes.Replace(data, []byte(tokenBlock), []byte("SOMETHING ELSE"), -1)} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil {
			t.Errorf("%d bytes of %d were taken for an authority", len(bad), len(data))
		}
		if kept, _ := os.ReadFile(path); !bytes.Equal(kept, bad) {
			t.Error("a damaged authority was replaced")
		}
	}
}

// A board without a clock lives in 1970, and must find the appliance's certificate good all the same.
func TestServerCertIn1970(t *testing.T) {
	a, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.ServerCert([]string{"bramble"}, []net.IP{net.IPv4(10, 0, 0, 2)})
	if err != nil {
		t.Fatal(err)
	}
	other, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{time.Unix(30, 0), noon} {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: "10.0.0.2", CurrentTime: at}); err != nil {
			t.Errorf("in %d: %v", at.Year(), err)
		}
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: other.Pool(), CurrentTime: at}); err == nil {
			t.Errorf("in %d: another appliance's CA vouches for it", at.Year())
		}
	}
	if len(cert.Certificate) != 2 || !bytes.Equal(cert.Certificate[1], a.cert.Raw) {
		t.Error("the chain does not hold the CA, which clients pin")
	}
}

func FuzzRead(f *testing.F) {
	a, err := Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	r := newBoard(f, a, alpha, "a1").request
	f.Add(r.CSR, r.SSHKey)
	f.Add("-----BEGIN CERTIFICATE REQUEST-----\n\n-----END CERTIFICATE REQUEST-----\n", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA")
	f.Add("", "cert-authority ssh-rsa AAAA")
	f.Fuzz(func(t *testing.T, csr, host string) {
		r := r
		r.CSR, r.SSHKey = csr, host
		p, err := read(r)
		if err != nil {
			return
		}
		s := newState()
		answer, err := a.issue(s, p, addrA, noon)
		if err != nil {
			t.Fatalf("what was read cannot be certified: %v", err)
		}
		if cert := leaf(t, answer); cert.IsCA || cert.Subject.CommonName != s.Name || len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) != 0 || len(p.code()) != 9 {
			t.Errorf("the request put something into the certificate: %+v", cert.Subject)
		}
	})
}
