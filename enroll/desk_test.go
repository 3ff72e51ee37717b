package enroll

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"bramble/firstboot/wire"
	"bramble/node"
)

var (
	noon  = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	alpha = node.MAC{0xb8, 0x27, 0xeb, 0, 0, 1}
	beta  = node.MAC{0xb8, 0x27, 0xeb, 0, 0, 2}
	thief = node.MAC{2, 0, 0, 0, 0, 9}
	addrA = netip.MustParseAddr("10.0.0.1")
	addrB = netip.MustParseAddr("10.0.0.2")
	addrT = netip.MustParseAddr("10.0.0.9")
)

// world is a desk over a log that is a slice, with two boards on the segment that have just booted, and a thief.
type world struct {
	*Desk
	t    *testing.T
	log  []node.Event
	at   time.Time
	macs map[netip.Addr]node.MAC
}

func newWorld(t *testing.T, policy Policy) *world {
	t.Helper()
	a, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, at: noon, macs: map[netip.Addr]node.MAC{addrA: alpha, addrB: beta, addrT: thief}}
	w.Desk = &Desk{
		Authority: a, Nodes: node.NewRegistry(), Policy: policy, Started: noon, Now: func() time.Time { return w.at },
		Record:    func(e node.Event) { w.log = append(w.log, e); w.Nodes.Apply(e) },
		Neighbour: func(a netip.Addr) (node.MAC, bool) { m, ok := w.macs[a]; return m, ok },
		Events: func(m node.MAC) (all []node.Event) {
			for _, e := range w.log {
				if e.Node == m && e.Kind == node.BootStarted {
					all = nil
				}
				if e.Node == m {
					all = append(all, e)
				}
			}
			return all
		},
	}
	w.boot(alpha, "a1")
	w.boot(beta, "b1")
	return w
}

func (w *world) boot(mac node.MAC, boot node.BootID) {
	w.Record(node.Event{Time: w.at, Kind: node.BootStarted, Node: mac, Boot: boot, Serial: node.Serial(0x10000000 + uint32(mac[5])), Name: "pi-" + string(rune('a'+mac[5]-1))})
}

func (w *world) state(mac node.MAC) node.State { s, _ := w.Nodes.Get(mac); return s }

// count is how many events of a kind there are.
func (w *world) count(kind node.Kind) (n int) {
	for _, e := range w.log {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// board is what a board makes in one boot.
type board struct {
	request wire.EnrollRequest
	key     *ecdsa.PrivateKey
	host    ssh.Signer
}

func newBoard(t testing.TB, a *Authority, mac node.MAC, boot node.BootID) board {
	t.Helper()
	key, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	hostKey, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	csr, err1 := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	host, err2 := ssh.NewSignerFromKey(hostKey)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return board{key: key, host: host, request: wire.EnrollRequest{
		MAC: mac, Boot: boot, Token: a.Token(mac, boot), SSHKey: string(ssh.MarshalAuthorizedKey(host.PublicKey())),
		CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
	}}
}

func leaf(t testing.TB, answer wire.EnrollAnswer) *x509.Certificate {
	t.Helper()
	b, _ := pem.Decode([]byte(answer.Cert))
	if b == nil {
		t.Fatalf("there is no certificate in %+v", answer)
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) welcome(peer netip.Addr, r wire.EnrollRequest) wire.EnrollAnswer {
	w.t.Helper()
	answer, err := w.Enroll(peer, r)
	if err != nil {
		w.t.Fatalf("%s was refused: %v", r.MAC, err)
	}
	return answer
}

// turnedAway expects a refusal with a sentence, and nothing else.
func (w *world) turnedAway(peer netip.Addr, r wire.EnrollRequest, want string) {
	w.t.Helper()
	answer, err := w.Enroll(peer, r)
	var no *Refusal
	if !errors.As(err, &no) || !strings.Contains(no.Why, want) || answer != (wire.EnrollAnswer{}) {
		w.t.Errorf("got %+v, %v; want a refusal with %q", answer, err, want)
	}
}

func TestEnroll(t *testing.T) {
	w := newWorld(t, Window)
	b := newBoard(t, w.Authority, alpha, "a1")
	answer := w.welcome(addrA, b.request)
	cert := leaf(t, answer)
	mac, boot, err := Identity(cert)
	if err != nil || mac != alpha || boot != "a1" || cert.Subject.CommonName != "pi-a" || !b.key.PublicKey.Equal(cert.PublicKey) {
		t.Errorf("certificate of %s %s, %s, %v", mac, boot, cert.Subject, err)
	}
	use := func(at time.Time, usage x509.ExtKeyUsage) error {
		_, err := cert.Verify(x509.VerifyOptions{Roots: w.Authority.Pool(), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}})
		return err
	}
	if err := use(noon, x509.ExtKeyUsageClientAuth); err != nil {
		t.Error(err)
	}
	if use(noon, x509.ExtKeyUsageServerAuth) == nil {
		t.Error("a node's certificate passes for the appliance's")
	}
	if use(noon.Add(life+time.Second), x509.ExtKeyUsageClientAuth) == nil || !answer.NotAfter.Equal(noon.Add(life)) {
		t.Error("the certificate is good for longer than a day")
	}
	if s := w.state(alpha); !s.Enrolled || s.Addr != addrA || answer.Name != "pi-a" {
		t.Errorf("folded to %+v", s)
	}
	// The answer was lost: the same question has the same answer.
	w.at = noon.Add(time.Hour)
	if again := leaf(t, w.welcome(addrA, b.request)); !b.key.PublicKey.Equal(again.PublicKey) || w.count(node.Enrolled) != 1 {
		t.Error("the same request got another answer")
	}
	if _, err := w.Admit(alpha, "a1", addrA); err != nil {
		t.Errorf("the node is not admitted: %v", err)
	}
	text, err := json.Marshal(w.log)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"PRIVATE KEY", b.request.Token, w.Authority.Token(beta, "b1"), "CERTIFICATE"} {
		if strings.Contains(string(text), secret) {
			t.Errorf("the events hold %q", secret)
		}
	}
}

// Who shows the living token of a board and is not that board freezes its slot, until the next boot.
func TestAlarms(t *testing.T) {
	for name, test := range map[string]struct {
		first bool // the board has enrolled before
		peer  netip.Addr
		do    func(*wire.EnrollRequest)
		want  string
	}{
		"replay with another key":          {true, addrA, func(*wire.EnrollRequest) {}, "used a second time, with another key"},
		"replay from another machine":      {true, addrT, func(*wire.EnrollRequest) {}, "another machine, " + thief.String()},
		"race from another machine":        {false, addrT, func(*wire.EnrollRequest) {}, "another machine, " + thief.String()},
		"a board with another serial":      {false, addrA, func(r *wire.EnrollRequest) { r.Serial = 7 }, "serial number 00000007"},
		"a copied serial, another machine": {false, addrT, func(r *wire.EnrollRequest) { r.Serial = 0x10000001 }, "another machine"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Anybody)
			real := newBoard(t, w.Authority, alpha, "a1")
			if test.first {
				w.welcome(addrA, real.request)
			}
			bad := newBoard(t, w.Authority, alpha, "a1").request
			test.do(&bad)
			w.turnedAway(test.peer, bad, test.want)
			if s := w.state(alpha); !s.Frozen || !strings.Contains(s.Problem, test.want) || w.count(node.Alarm) != 1 {
				t.Fatalf("no alarm: %+v", s)
			}
			w.turnedAway(addrA, real.request, "any more")
			w.turnedAway(test.peer, bad, "any more")
			if _, err := w.Admit(alpha, "a1", addrA); err == nil {
				t.Error("a certificate of a frozen boot is still good")
			}
			if w.count(node.Alarm) != 1 {
				t.Errorf("%d alarms for one attack", w.count(node.Alarm))
			}
			w.boot(alpha, "a2")
			w.welcome(addrA, newBoard(t, w.Authority, alpha, "a2").request)
		})
	}
}

// What proves nothing freezes nothing.
func TestRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		peer  netip.Addr
		after time.Duration
		do    func(*world, *wire.EnrollRequest)
		want  string
	}{
		"no token":                      {addrA, 0, func(_ *world, r *wire.EnrollRequest) { r.Token = "" }, "not of this appliance"},
		"a copied MAC without token":    {addrT, 0, func(_ *world, r *wire.EnrollRequest) { r.Token = "X" }, "not of this appliance"},
		"expired":                       {addrA, tokenLife + time.Second, func(*world, *wire.EnrollRequest) {}, "has expired"},
		"token of an older boot":        {addrA, 0, func(w *world, _ *wire.EnrollRequest) { w.boot(alpha, "a2") }, "another boot"},
		"older token for the new boot":  {addrA, 0, func(w *world, r *wire.EnrollRequest) { w.boot(alpha, "a2"); r.Boot = "a2" }, "not of this appliance"},
		"new token for the older boot":  {addrA, 0, func(_ *world, r *wire.EnrollRequest) { r.Boot = "a0" }, "another boot"},
		"from behind a router":          {netip.MustParseAddr("192.168.9.9"), 0, func(*world, *wire.EnrollRequest) {}, "cannot be seen from here"},
		"a board that never booted":     {addrT, 0, func(_ *world, r *wire.EnrollRequest) { r.MAC = thief }, "No boot of"},
		"no key":                        {addrA, 0, func(_ *world, r *wire.EnrollRequest) { r.CSR = "x" }, "one block of PEM"},
		"an SSH key that is none":       {addrA, 0, func(_ *world, r *wire.EnrollRequest) { r.SSHKey = "ssh-ed25519 x" }, "SSH host key"},
		"a second line behind SSH's":    {addrA, 0, func(_ *world, r *wire.EnrollRequest) { r.SSHKey += r.SSHKey }, "SSH host key"},
		"a certificate request, twice":  {addrA, 0, func(_ *world, r *wire.EnrollRequest) { r.CSR += r.CSR }, "one block of PEM"},
		"a request that is much larger": {addrA, 0, func(_ *world, r *wire.EnrollRequest) { r.CSR = strings.Repeat("x", 1<<20) }, "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Anybody)
			r := newBoard(t, w.Authority, alpha, "a1").request
			w.at = noon.Add(test.after)
			test.do(w, &r)
			w.turnedAway(test.peer, r, test.want)
			if w.count(node.Alarm)+w.count(node.Enrolled) != 0 {
				t.Errorf("it was more than a refusal: %+v", w.log)
			}
		})
	}
}

func TestAnotherBoardsToken(t *testing.T) {
	w := newWorld(t, Anybody)
	r := newBoard(t, w.Authority, alpha, "a1").request
	r.Token = w.Authority.Token(beta, "b1")
	w.turnedAway(addrA, r, "of another board")
	if !w.state(beta).Frozen || w.state(alpha).Frozen {
		t.Errorf("beta, whose token is known to others, is frozen: %v; alpha: %v", w.state(beta).Frozen, w.state(alpha).Frozen)
	}
	w.turnedAway(addrB, newBoard(t, w.Authority, beta, "b1").request, "any more")
	w.welcome(addrA, newBoard(t, w.Authority, alpha, "a1").request)
}

// A machine with copied addresses boots while the real board runs: it looks like a power cycle until the real one speaks.
func TestImpostor(t *testing.T) {
	w := newWorld(t, Anybody)
	w.welcome(addrA, newBoard(t, w.Authority, alpha, "a1").request)
	w.at = noon.Add(time.Hour)
	w.boot(alpha, "a2")
	w.macs[addrT] = alpha
	w.welcome(addrT, newBoard(t, w.Authority, alpha, "a2").request)
	if _, err := w.Admit(alpha, "a2", addrT); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Admit(alpha, "a1", addrA); err == nil || !strings.Contains(err.Error(), "Two machines are this board") {
		t.Errorf("the real board was told %v", err)
	}
	if _, err := w.Admit(alpha, "a2", addrT); err == nil || !w.state(alpha).Frozen {
		t.Error("the impostor goes on")
	}
	if _, err := w.Renew(alpha, "a2", addrT, newBoard(t, w.Authority, alpha, "a2").request); err == nil {
		t.Error("the impostor renews its certificate")
	}
}

func TestRenew(t *testing.T) {
	w := newWorld(t, Known)
	w.Named = func(m node.MAC, _ node.Serial) bool { return m == alpha }
	b := newBoard(t, w.Authority, alpha, "a1")
	w.welcome(addrA, b.request)
	w.at = noon.Add(20 * time.Hour)
	b.request.Token = ""
	answer, err := w.Renew(alpha, "a1", addrA, b.request)
	if err != nil || !answer.NotAfter.Equal(w.at.Add(life)) || w.count(node.Enrolled) != 1 {
		t.Errorf("renewed until %v, %v", answer.NotAfter, err)
	}
	if _, err := w.Renew(beta, "b1", addrB, b.request); err == nil {
		t.Error("a board that has not joined renewed its certificate")
	}
	w.Record(node.Event{Kind: node.Forgotten, Node: alpha})
	if _, err := w.Renew(alpha, "a1", addrA, b.request); err == nil {
		t.Error("a forgotten board renewed its certificate")
	}
}

func TestMinion(t *testing.T) {
	w := newWorld(t, Anybody)
	b := newBoard(t, w.Authority, alpha, "a1")
	w.welcome(addrA, b.request)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	good := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	b.request.Minion = good
	if _, err := w.Renew(alpha, "a1", addrA, b.request); err == nil {
		t.Error("a minion was accepted without a master")
	}
	var accepted []string
	w.Desk.Minion = func(s node.State, key string) error { accepted = append(accepted, s.Name+" "+key); return nil }
	if _, err := w.Renew(alpha, "a1", addrA, b.request); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"x", good + good, b.request.CSR} {
		b.request.Minion = bad
		if _, err := w.Renew(alpha, "a1", addrA, b.request); err == nil {
			t.Errorf("%q was accepted as a minion's key", bad)
		}
	}
	if len(accepted) != 1 || accepted[0] != "pi-a "+good {
		t.Errorf("accepted %q", accepted)
	}
}

func TestPolicies(t *testing.T) {
	facts := func(w *world) { // an agent has spoken in an earlier boot
		w.Record(node.Event{Kind: node.AgentDone, Node: alpha, Step: "facts", Facts: node.Facts{RAM: 1 << 30}})
		w.boot(alpha, "a1")
	}
	named := func(w *world) { w.Named = func(_ node.MAC, s node.Serial) bool { return s == 0x10000001 } }
	late := func(w *world) { w.at = noon.Add(2 * time.Hour); w.boot(alpha, "a1") }
	open := func(w *world) { late(w); _ = w.OpenWindow(time.Hour) }
	shut := func(w *world) { _ = w.OpenWindow(0) }
	for name, test := range map[string]struct {
		policy Policy
		before []func(*world)
		want   string // "in", "waits" or a part of the refusal
	}{
		"window, after the start":       {Window, nil, "in"},
		"window, closed":                {Window, []func(*world){late}, "bramble window 1h"},
		"window, closed by the admin":   {Window, []func(*world){shut}, "bramble window 1h"},
		"window, opened":                {Window, []func(*world){open}, "in"},
		"window, closed, seen before":   {Window, []func(*world){late, facts}, "in"},
		"window, closed, named":         {Window, []func(*world){late, named}, "in"},
		"known, not known":              {Known, nil, "known boards join only"},
		"known, opened":                 {Known, []func(*world){open}, "known boards join only"},
		"known, named":                  {Known, []func(*world){named}, "in"},
		"known, seen before":            {Known, []func(*world){facts}, "in"},
		"approve, not known":            {Approve, nil, "waits"},
		"approve, seen before":          {Approve, []func(*world){facts}, "in"},
		"open, long after":              {Anybody, []func(*world){late}, "in"},
		"window, an hour is not longer": {Window, []func(*world){func(w *world) { w.at = noon.Add(FirstWindow); w.boot(alpha, "a1") }}, "is closed"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, test.policy)
			for _, do := range test.before {
				do(w)
			}
			r := newBoard(t, w.Authority, alpha, "a1").request
			switch test.want {
			case "in":
				leaf(t, w.welcome(addrA, r))
			case "waits":
				if answer := w.welcome(addrA, r); answer.Wait == 0 || answer.Cert != "" {
					t.Errorf("got %+v", answer)
				}
			default:
				w.turnedAway(addrA, r, test.want)
			}
		})
	}
	if _, err := ParsePolicy("maybe"); err == nil {
		t.Error("maybe is a policy")
	}
	if err := newWorld(t, Window).OpenWindow(MaxWindow + 1); err == nil {
		t.Error("the window opens for ever")
	}
}

func TestApprove(t *testing.T) {
	w := newWorld(t, Approve)
	b := newBoard(t, w.Authority, alpha, "a1")
	code, err := Code(b.request.CSR)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Approve(alpha, code); err == nil {
		t.Error("a board was approved before it asked")
	}
	for range 3 {
		if answer := w.welcome(addrA, b.request); answer.Code != code || answer.Wait <= 0 || answer.Cert != "" {
			t.Fatalf("got %+v; want the code %s", answer, code)
		}
	}
	if w.state(alpha).Waiting != code || w.count(node.Waiting) != 1 {
		t.Errorf("the page shows %q after %d events; the console %s", w.state(alpha).Waiting, w.count(node.Waiting), code)
	}
	if err := w.Approve(alpha, "AAAA-AAAA"); err == nil || !strings.Contains(err.Error(), "do not approve") {
		t.Errorf("a wrong code: %v", err)
	}
	w.at = noon.Add(3 * time.Hour) // admins sleep, too
	w.welcome(addrA, b.request)
	if err := w.Approve(alpha, strings.ToLower(strings.ReplaceAll(code, "-", " "))); err != nil {
		t.Fatal(err)
	}
	leaf(t, w.welcome(addrA, b.request))
	if s := w.state(alpha); !s.Enrolled || s.Waiting != "" {
		t.Errorf("folded to %+v", s)
	}

	c := newBoard(t, w.Authority, beta, "b2")
	w.boot(beta, "b2")
	w.welcome(addrB, c.request)
	w.turnedAway(addrB, newBoard(t, w.Authority, beta, "b2").request, "while it waits")
	w.turnedAway(addrB, c.request, "any more")
	if err := w.Approve(beta, w.state(beta).Waiting); err == nil {
		t.Error("a frozen board was approved")
	}
}

// The appliance is started again while a node waits: the node asks again, and nothing has changed for it.
func TestApproveAfterRestart(t *testing.T) {
	w := newWorld(t, Approve)
	b := newBoard(t, w.Authority, alpha, "a1")
	code := w.welcome(addrA, b.request).Code
	w.waiting = nil
	if err := w.Approve(alpha, code); err == nil || !strings.Contains(err.Error(), "try once more") {
		t.Errorf("approved before the node asked again: %v", err)
	}
	w.welcome(addrA, b.request)
	if err := w.Approve(alpha, code); err != nil {
		t.Fatal(err)
	}
	leaf(t, w.welcome(addrA, b.request))
	if w.count(node.Alarm) != 0 || w.count(node.Waiting) != 1 {
		t.Errorf("%d alarms, %d times waiting", w.count(node.Alarm), w.count(node.Waiting))
	}
}

// Strangers that ask and ask do not fill the journal.
func TestRefusalsAreFew(t *testing.T) {
	w := newWorld(t, Anybody)
	before := len(w.log)
	r := newBoard(t, w.Authority, alpha, "a1").request
	for i := range 1000 {
		r.Token = "x"
		_, _ = w.Enroll(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), r)
	}
	if n := len(w.log) - before; n != burst {
		t.Errorf("%d events for a thousand strangers; want %d", n, burst)
	}
}
