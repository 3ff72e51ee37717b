package dhcp

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"bramble/boot"
	"bramble/lab"
	"bramble/lab/netns"
	"bramble/node"
)

// serverVar makes the test binary a DHCP server, so that tests can run it inside a network namespace and kill it.
const serverVar = "BRAMBLE_TEST_DHCP"

type serverConfig struct {
	Interfaces []string
	Authority  *Authority
	ProbeWait  time.Duration
	ProbeAgain time.Duration
	Quiet      bool // events are not printed
}

func TestMain(m *testing.M) {
	if cfg := os.Getenv(serverVar); cfg != "" {
		if err := beServer(cfg); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// beServer serves until SIGTERM, prints "listening" and then each event as a line of JSON.
func beServer(text string) error {
	var cfg serverConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	events := io.Writer(os.Stdout)
	if cfg.Quiet {
		events = io.Discard
	}
	s := newServer(events)
	s.Interfaces, s.Authority, s.ProbeWait, s.ProbeAgain = cfg.Interfaces, cfg.Authority, cfg.ProbeWait, cfg.ProbeAgain
	if err := s.Listen(); err != nil {
		return err
	}
	fmt.Println("listening")
	return s.Run(ctx)
}

// newServer is a server with a desk behind it that boots everybody, and events as lines of JSON.
func newServer(events io.Writer) *Server {
	nodes := node.NewRegistry()
	var mu sync.Mutex
	enc := json.NewEncoder(events)
	record := func(e node.Event) {
		nodes.Apply(e)
		mu.Lock()
		defer mu.Unlock()
		_ = enc.Encode(e)
	}
	rules := boot.Rules{Default: boot.Profile{Image: "lab"}, Images: map[string]string{"lab": "sha256-lab"}}
	desk := &boot.Desk{Nodes: nodes, Rules: func() boot.Rules { return rules }, Record: record, Now: time.Now}
	level := slog.LevelWarn
	if os.Getenv("BRAMBLE_TEST_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return &Server{
		Ask: desk.Ask, Record: record, Nodes: nodes, ProbeWait: -1,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	}
}

// process is a server in a namespace.
type process struct {
	cmd    *exec.Cmd
	mu     sync.Mutex
	events []node.Event
}

func startServer(t testing.TB, ns *netns.NS, cfg serverConfig) *process {
	t.Helper()
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cmd, lines := lab.Again(t, ns, serverVar, string(text))
	p := &process{cmd: cmd}
	t.Cleanup(p.kill)
	go func() {
		for lines.Scan() {
			var e node.Event
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				p.mu.Lock()
				p.events = append(p.events, e)
				p.mu.Unlock()
			}
		}
	}()
	return p
}

// startDnsmasq runs a dnsmasq of one's own settings, and returns its process id when it serves.
func startDnsmasq(t testing.TB, host *lab.Host, args ...string) int {
	t.Helper()
	dir := t.TempDir()
	cmd := host.Command("dnsmasq", append([]string{"--no-daemon", "--conf-file=/dev/null", "--port=0", "--quiet-dhcp",
		"--bind-interfaces", "--dhcp-leasefile=" + dir + "/leases", "--pid-file=" + dir + "/pid"}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if out, err := host.Output("cat", "/proc/net/udp"); err == nil && strings.Contains(out, ":0043 ") {
			return cmd.Process.Pid
		}
	}
	t.Fatal("dnsmasq does not serve after five seconds")
	return 0
}

// kill ends the server as kill -9 does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *process) all() []node.Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.events)
}

// kinds are the kinds of a board's events so far, in order; with the zero MAC, those about no board.
func (p *process) kinds(mac node.MAC) string {
	var kinds []string
	for _, e := range p.all() {
		if e.Node == mac {
			kinds = append(kinds, string(e.Kind))
		}
	}
	return strings.Join(kinds, " ")
}

// timeline waits until a board's events are these.
func (p *process) timeline(t *testing.T, mac node.MAC, want string) {
	t.Helper()
	eventually(t, 10*time.Second, func() bool { return p.kinds(mac) == want }, func() string {
		return fmt.Sprintf("the timeline of %s is %q; want %q", mac, p.kinds(mac), want)
	})
}

// said waits for an event whose text contains all of words.
func (p *process) said(t *testing.T, kind node.Kind, words ...string) {
	t.Helper()
	var texts []string
	eventually(t, 15*time.Second, func() bool {
		texts = nil
	events:
		for _, e := range p.all() {
			if e.Kind != kind {
				continue
			}
			texts = append(texts, e.Text)
			for _, word := range words {
				if !strings.Contains(e.Text, word) {
					continue events
				}
			}
			return true
		}
		return false
	}, func() string { return fmt.Sprintf("no %s with %q among %q", kind, words, texts) })
}

func eventually(t *testing.T, wait time.Duration, ok func() bool, complaint func() string) {
	t.Helper()
	for end := time.Now().Add(wait); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(complaint())
		}
	}
}

// client sends and hears DHCP on a host, with whatever MAC it likes.
type client struct {
	t    testing.TB
	conn *packet.Conn
}

func newClient(t testing.TB, host *lab.Host) *client {
	t.Helper()
	c := &client{t: t}
	err := host.Do(func() (err error) {
		if c.conn, _, err = tap("eth0", unix.ETH_P_IP, nil); err == nil {
			err = c.conn.SetPromiscuous(true)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.conn.Close() })
	return c
}

// broadcast sends a client's packet from its chaddr, as a boot ROM does.
func (c *client) broadcast(packet []byte) {
	c.t.Helper()
	f := frame{
		src: node.MAC(packet[28:34]), dst: broadcastMAC,
		from: netip.AddrPortFrom(netip.IPv4Unspecified(), clientPort), to: netip.AddrPortFrom(limitedBroadcast, serverPort),
	}
	if err := f.send(c.conn, packet); err != nil {
		c.t.Fatal(err)
	}
}

type heard struct {
	frame
	after time.Duration
	raw   []byte
	dhcp  *dhcpv4.DHCPv4 // nil: a wake-up
}

// hear collects for a while what servers send.
func (c *client) hear(wait time.Duration) []heard {
	c.t.Helper()
	return c.until(wait, func(heard) bool { return false })
}

// until is hear that ends early.
func (c *client) until(wait time.Duration, enough func(heard) bool) (all []heard) {
	c.t.Helper()
	start := time.Now()
	if err := c.conn.SetReadDeadline(start.Add(wait)); err != nil {
		c.t.Fatal(err)
	}
	b := make([]byte, 4096)
	for {
		n, _, err := c.conn.ReadFrom(b)
		if isTimeout(err) {
			return all
		}
		if err != nil {
			c.t.Fatal(err)
		}
		f, payload, err := parseFrame(b[:n])
		if err != nil || f.from.Port() != serverPort {
			continue
		}
		h := heard{frame: f, after: time.Since(start), raw: append([]byte{}, payload...)}
		if f.to.Port() == clientPort {
			if h.dhcp, err = dhcpv4.FromBytes(payload); err != nil {
				c.t.Errorf("a packet that cannot be read: %v", err)
				continue
			}
		}
		if all = append(all, h); enough(h) {
			return all
		}
	}
}

// answers waits for so many DHCP packets, and a moment for those that should not come.
func (c *client) answers(count int) []heard {
	c.t.Helper()
	n := 0
	all := c.until(10*time.Second, func(h heard) bool {
		if h.dhcp != nil {
			n++
		}
		return n == count
	})
	return append(all, c.hear(200*time.Millisecond)...)
}

func (c *client) clear() { c.hear(50 * time.Millisecond) }
