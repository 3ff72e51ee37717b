package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"bramble/firstboot/wire"
)

// Files of the state.
const (
	keyFile      = "key.pem"
	csrFile      = "csr.pem"
	identityFile = "identity.json"
)

const hostKey = "etc/ssh/ssh_host_ed25519_key"

// enroll buys the node's certificate with this boot's token. Waiting for an admin is no failure.
func (a *Agent) enroll(ctx context.Context) (wire.StepReport, error) {
	if err := a.connect(ctx); err != nil {
		return wire.StepReport{}, err
	}
	if a.Orders.Token == "" {
		return wire.StepReport{}, errors.New("the kernel command line has no token to enroll with")
	}
	request, err := a.request("")
	if err != nil {
		return wire.StepReport{}, err
	}
	request.Token = a.Orders.Token
	return a.submit(ctx, request)
}

// connect makes the client, and shows the certificate that the node has from before.
func (a *Agent) connect(ctx context.Context) error {
	if a.client == nil {
		c, err := newClient(a.path("etc/bramble/ca.pem"), a.Orders, a.Now)
		if err != nil {
			return err
		}
		a.client = c
	}
	return a.client.setClock(ctx, a.plain())
}

// submit sends the request until it is answered with a certificate, which it keeps.
func (a *Agent) submit(ctx context.Context, request wire.EnrollRequest) (wire.StepReport, error) {
	var shown string
	for {
		var answer wire.EnrollAnswer
		if err := a.client.post(ctx, wire.EnrollPath, request, &answer); err != nil {
			return wire.StepReport{}, err
		}
		if answer.Cert != "" {
			return a.keep(answer)
		}
		if answer.Wait <= 0 {
			return wire.StepReport{}, errors.New("the appliance gives neither a certificate nor a reason to wait")
		}
		if answer.Code != shown {
			shown = answer.Code
			a.Say("This node waits for its admin's approval. Its code is %s; compare it with the appliance's page.", shown)
		}
		if err := a.Pause(ctx, min(max(answer.Wait, shortest), longest)); err != nil {
			return wire.StepReport{}, err
		}
	}
}

func (a *Agent) keep(answer wire.EnrollAnswer) (wire.StepReport, error) {
	mine, err := a.pair(answer.Cert)
	if err != nil {
		return wire.StepReport{}, err
	}
	if err := a.save(identityFile, answer); err != nil {
		return wire.StepReport{}, err
	}
	a.client.show(mine)
	return wire.StepReport{Text: fmt.Sprintf("This node is %s until %s.", answer.Name, mine.Leaf.NotAfter.UTC().Format(time.RFC3339))}, nil
}

// pair joins a certificate with the node's key.
func (a *Agent) pair(cert string) (*tls.Certificate, error) {
	key, err := os.ReadFile(a.state(keyFile))
	if err != nil {
		return nil, fmt.Errorf("the node's key is gone: %w", err)
	}
	pair, err := tls.X509KeyPair([]byte(cert), key)
	if err != nil {
		return nil, fmt.Errorf("the certificate from the appliance does not fit the node's key: %w", err)
	}
	return &pair, nil
}

// resume makes the identity of an agent before this one its own.
func (a *Agent) resume(ctx context.Context) error {
	if err := a.connect(ctx); err != nil {
		return err
	}
	var answer wire.EnrollAnswer
	if err := a.load(identityFile, &answer); err != nil {
		return err
	}
	mine, err := a.pair(answer.Cert)
	if err != nil {
		return err
	}
	a.client.show(mine)
	return nil
}

// request is the same every time in one boot, so that an answer that was lost can be asked for again.
func (a *Agent) request(minion string) (wire.EnrollRequest, error) {
	csr, err := a.csr()
	if err != nil {
		return wire.EnrollRequest{}, err
	}
	host, err := os.ReadFile(a.path(hostKey + ".pub"))
	if err != nil {
		return wire.EnrollRequest{}, fmt.Errorf("the SSH host key is not there yet: %w", err)
	}
	return wire.EnrollRequest{
		MAC: a.Orders.MAC, Serial: a.facts.Serial, Boot: a.Orders.Boot, CSR: csr, SSHKey: string(trim(host)), Minion: minion,
	}, nil
}

// csr returns the node's certificate request. The key is made here, and stays here.
func (a *Agent) csr() (string, error) {
	text, err := os.ReadFile(a.state(csrFile))
	if err == nil {
		return string(text), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the certificate request cannot be read: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("the node's key cannot be made: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("the node's key cannot be written: %w", err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: a.Orders.MAC.String()},
	}, key)
	if err != nil {
		return "", fmt.Errorf("the certificate request cannot be made: %w", err)
	}
	text = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request})
	// The request comes last: where it is, its key is too.
	err = errors.Join(
		a.write(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		a.write(csrFile, text))
	return string(text), err
}

// renewal is when the certificate is to be renewed: after two thirds of its life, and not too soon after a failure.
func (a *Agent) renewal() time.Time {
	leaf := a.client.mine.Load().Leaf
	at := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3)
	if again := a.renewed.Add(longest); again.After(at) {
		return again
	}
	return at
}

// renew asks for another certificate with the one that still holds.
func (a *Agent) renew(ctx context.Context) error {
	if a.client.Now().Before(a.renewal()) {
		return nil
	}
	a.renewed = a.client.Now()
	err := a.attempt(ctx, step{name: "enroll", do: func(ctx context.Context) (wire.StepReport, error) { return a.again(ctx, "") }}, time.Now())
	if err != nil {
		return err
	}
	return a.attempt(ctx, step{name: "ssh", do: a.certify}, time.Now())
}

// again enrolls over mutual TLS: the certificate speaks for the node, no token does.
func (a *Agent) again(ctx context.Context, minion string) (wire.StepReport, error) {
	request, err := a.request(minion)
	if err != nil {
		return wire.StepReport{}, err
	}
	return a.submit(ctx, request)
}

// save keeps a value in the state.
func (a *Agent) save(name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return a.write(name, text)
}

// load reads what save kept.
func (a *Agent) load(name string, into any) error {
	text, err := os.ReadFile(a.state(name))
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return fmt.Errorf("the agent's state cannot be read: %w", err)
	}
	return nil
}

// write replaces a file of the state as a whole, readable for root alone.
func (a *Agent) write(name string, data []byte) error {
	return replace(a.state(name), data, 0o600)
}
