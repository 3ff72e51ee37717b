package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// RouterConfig says what the house router, a real dnsmasq, gives out.
type RouterConfig struct {
	Name string       // of its port; default "router"
	Addr netip.Prefix // its own address and the network; default 10.77.0.1/24

	// First and Last are the range of addresses to lease; default: .100 to .199 of a /24.
	First, Last netip.Addr

	TFTPServer string // option 66, if not empty
	NoOffers   bool   // a router that leases to known hosts only, and knows none

	// Proxy makes it a rival instead: no addresses, but a proxyDHCP answer to boards with this Pi menu entry
	// (pxe-service), such as "Raspberry Pi Boot".
	Proxy string

	Args []string  // more arguments for dnsmasq
	Log  io.Writer // where each line of dnsmasq's log goes as well, if not nil
}

// Router is a running dnsmasq on a host of its own.
type Router struct {
	*Host
	Addr netip.Prefix

	cmd   *exec.Cmd
	dir   string
	ended chan struct{}

	mu    sync.Mutex
	lines []string
	grown chan struct{} // closed when lines grow
}

// AddRouter puts a house router on the segment and waits until it serves.
func (s *Segment) AddRouter(cfg RouterConfig) (*Router, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	host, err := s.AddHost(cfg.Name, cfg.Addr.String())
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lab-router-")
	if err != nil {
		return nil, fmt.Errorf("cannot keep the router's leases: %w", err)
	}
	r := &Router{Host: host, Addr: cfg.Addr, dir: dir, ended: make(chan struct{}), grown: make(chan struct{})}
	if err := r.start(cfg); err != nil {
		return nil, fmt.Errorf("cannot start dnsmasq: %w", err)
	}
	s.onClose(r.close)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := r.WaitLog(ctx, "DHCP, "); err != nil {
		return nil, fmt.Errorf("dnsmasq does not serve: %w", err)
	}
	return r, nil
}

func (cfg RouterConfig) withDefaults() (RouterConfig, error) {
	if cfg.Name == "" {
		cfg.Name = "router"
	}
	if !cfg.Addr.IsValid() {
		cfg.Addr = netip.MustParsePrefix("10.77.0.1/24")
	}
	if !cfg.First.IsValid() && !cfg.Last.IsValid() && cfg.Addr.Bits() == 24 && cfg.Addr.Addr().Is4() {
		net := cfg.Addr.Addr().As4()
		net[3] = 100
		cfg.First = netip.AddrFrom4(net)
		net[3] = 199
		cfg.Last = netip.AddrFrom4(net)
	}
	if !cfg.First.IsValid() || !cfg.Last.IsValid() {
		return cfg, fmt.Errorf("router of %s: name the First and Last address to lease", cfg.Addr)
	}
	return cfg, nil
}

// args are dnsmasq's arguments; nothing is read from the machine's own configuration. In --no-daemon mode dnsmasq also
// keeps its user, without which the kernel would forget to kill it with us.
func (cfg RouterConfig) args(dir string) []string {
	args := []string{
		"--no-daemon", "--conf-file=/dev/null", "--log-dhcp",
		"--interface=eth0", "--bind-interfaces", "--no-resolv", "--no-hosts", "--domain=lan",
		"--dhcp-leasefile=" + dir + "/leases", "--no-ping",
	}
	switch {
	case cfg.Proxy != "":
		args = append(args, "--port=0", "--dhcp-range="+cfg.Addr.Masked().Addr().String()+",proxy",
			"--pxe-service=0,"+cfg.Proxy)
	case cfg.NoOffers:
		args = append(args, "--dhcp-range="+cfg.Addr.Masked().Addr().String()+",static")
	default:
		args = append(args, "--dhcp-authoritative", fmt.Sprintf("--dhcp-range=%s,%s,1h", cfg.First, cfg.Last))
	}
	if cfg.TFTPServer != "" {
		args = append(args, "--dhcp-option-force=66,"+cfg.TFTPServer)
	}
	return append(args, cfg.Args...)
}

func (r *Router) start(cfg RouterConfig) error {
	r.cmd = r.Command("dnsmasq", cfg.args(r.dir)...)
	out, err := r.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := r.cmd.Start(); err != nil {
		return err
	}
	go func() {
		defer close(r.ended)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			r.append(scan.Text())
			if cfg.Log != nil {
				fmt.Fprintln(cfg.Log, scan.Text())
			}
		}
	}()
	return nil
}

func (r *Router) append(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
	close(r.grown)
	r.grown = make(chan struct{})
}

// Log returns dnsmasq's log so far, line by line: the conversations as the router saw them.
func (r *Router) Log() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines)
}

// WaitLog waits for a line that contains text and returns it; lines already there count.
func (r *Router) WaitLog(ctx context.Context, text string) (string, error) {
	for seen := 0; ; {
		r.mu.Lock()
		lines, grown := r.lines, r.grown
		r.mu.Unlock()
		for ; seen < len(lines); seen++ {
			if strings.Contains(lines[seen], text) {
				return lines[seen], nil
			}
		}
		select {
		case <-grown:
		case <-r.ended:
			return "", fmt.Errorf("dnsmasq ended before it said %q: %s", text, strings.Join(r.Log(), "\n"))
		case <-ctx.Done():
			return "", fmt.Errorf("dnsmasq did not say %q: %w: %s", text, ctx.Err(), strings.Join(r.Log(), "\n"))
		}
	}
}

// close stops dnsmasq and forgets its leases.
func (r *Router) close() error {
	// Killed by us or dead already: either way it is gone, and its exit status says nothing.
	_ = r.cmd.Process.Kill()
	<-r.ended
	_ = r.cmd.Wait()
	return os.RemoveAll(r.dir)
}
