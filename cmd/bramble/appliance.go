package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"bramble/boot"
	"bramble/configs"
	"bramble/dhcp"
	"bramble/firstboot/nodefiles"
	"bramble/images"
	"bramble/journal"
	"bramble/nbd"
	"bramble/node"
	"bramble/web"
	"bramble/web/api"
)

type apiImage = api.Image

// secrets are what an appliance keeps for itself, in its state directory.
type secrets struct {
	token string // for changing calls of the API
	seed  string // of the nodes' machine-ids
}

func openState(dir string) (secrets, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return secrets{}, fmt.Errorf("the state directory cannot be made; run bramble with sudo, or choose another with --state-dir: %w", err)
	}
	token, err := web.LoadOrMakeToken(filepath.Join(dir, "token"))
	if err != nil {
		return secrets{}, err
	}
	seed, err := loadOrMakeSeed(filepath.Join(dir, "machine-id-seed"))
	return secrets{token, seed}, err
}

// loadOrMakeSeed must give the same for ever: the nodes' machine-ids follow from it.
func loadOrMakeSeed(file string) (string, error) {
	text, err := os.ReadFile(file)
	if seed := strings.TrimSpace(string(text)); err == nil && seed != "" {
		return seed, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("the seed of the nodes' machine-ids cannot be read: %w", err)
	}
	seed := rand.Text()
	if err := os.WriteFile(file, []byte(seed+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("the seed of the nodes' machine-ids cannot be kept: %w", err)
	}
	return seed, nil
}

// rules is the policy that the settings are; the catalogue is added by policy.refresh.
func rules(s configs.Settings, image images.Info, keys []string) boot.Rules {
	name := s.Image
	if len(image.Names) > 0 {
		name = image.Names[0]
	}
	return boot.Rules{
		Default:  boot.Profile{Image: name, User: s.User, Keys: keys, Config: s.Config, Cmdline: s.Cmdline, Overlay: s.Overlay},
		Nodes:    s.Rules,
		NameWith: s.NamePrefix,
	}
}

func authority(s configs.Settings) *dhcp.Authority {
	if s.DHCP != "authoritative" {
		return nil
	}
	return &dhcp.Authority{
		First: s.First, Last: s.Last, LeaseTime: s.LeaseTime, Router: s.RouterAddr, DNS: s.DNSAddrs,
		File: filepath.Join(s.StateDir, "leases"),
	}
}

func nodeFiles(p boot.Plan, seed string) ([]byte, error) {
	spec := nodefiles.Spec{Name: p.Name, MAC: p.MAC, MachineIDSeed: seed, User: p.User}
	if p.User != "" {
		spec.Keys = p.Keys
	}
	tar, _, err := nodefiles.Render(spec)
	return tar, err
}

// blocks tells the journal whose root is connected.
type blocks struct{ journal *journal.Journal }

func (b *blocks) opened(s *nbd.Session) { b.record(s, node.RootOpened, "") }

func (b *blocks) closed(s *nbd.Session, err error) {
	text := ""
	if err != nil {
		text = "The connection to its root broke; the node waits and connects again."
	}
	b.record(s, node.RootClosed, text)
}

func (b *blocks) record(s *nbd.Session, kind node.Kind, text string) {
	peer, err := netip.ParseAddrPort(s.Peer().String())
	if err != nil {
		return
	}
	// strangers may read what is public, but are not remembered
	if n, ok := b.journal.Nodes().ByAddr(peer.Addr().Unmap()); ok {
		b.journal.Record(node.Event{Kind: kind, Node: n.MAC, Boot: n.Boot, Image: s.Export(), Bytes: int64(s.Stats().Bytes), Text: text})
	}
}

func listenTFTP() (*net.UDPConn, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 69})
	if err != nil {
		return nil, fmt.Errorf("the TFTP server cannot listen on port 69; run bramble with sudo, and end another TFTP server if there is one: %w", err)
	}
	return conn, nil
}

// watchCatalogue takes up images that bramble image adds or removes while we serve.
func watchCatalogue(ctx context.Context, p *policy, log *slog.Logger) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			changed, err := p.refresh()
			if err != nil {
				log.Warn("the catalogue cannot be read; boots go on with what was in it", "err", err)
			} else if changed {
				log.Info("the catalogue has changed", "images", len(p.Rules().Images))
			}
		}
	}
}

// prepare builds the default image's initramfs before the first board asks for it.
func prepare(ctx context.Context, s *shelf, id string, log *slog.Logger) error {
	begin := time.Now()
	b, err := s.Stage1(ctx, id)
	if err != nil {
		return fmt.Errorf("the initramfs for image %s cannot be built: %w", id, err)
	}
	debug.FreeOSMemory() // the compressor's share is large, and needed once
	log.Info("stage 1 is ready", "image", id, "size", images.Bytes(int64(len(b))), "took", time.Since(begin).Round(time.Millisecond))
	<-ctx.Done()
	return nil
}

// announce says what bramble will do, and for whom.
func announce(w io.Writer, s configs.Settings, segments []segment, image images.Info, keys, keyFiles []string) {
	say := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	self := segments[0].Prefix.Addr()
	say("bramble %s serves Raspberry Pis on %s.", version, describe(segments))
	say("  image   %s (%s, released %s)", list(image.Names), image.ID, orWord(image.Released, "at an unknown date"))
	switch s.DHCP {
	case "proxy":
		say("  dhcp    beside your router: it gives the addresses, bramble only tells the boards where to boot")
	case "authoritative":
		say("  dhcp    bramble gives out %s-%s to everybody on this switch", s.First, s.Last)
	case "off":
		say("  dhcp    off: your DHCP server must name %s in option 66", self)
	}
	say("  whom    every Raspberry Pi that asks, %d with rules of their own; nobody else is booted", len(s.Rules))
	switch {
	case s.User == "":
		say("  login   none: no user is set")
	case len(keys) == 0:
		say("  login   NOBODY can log in: no public key was found. Make one with ssh-keygen, or name a file with --authorized-keys")
	default:
		say("  login   ssh %s@NODE with %s from %s", s.User, count(len(keys), "key"), list(keyFiles))
	}
	say("  watch   http://%s or bramble events -f", net.JoinHostPort(self.String(), fmt.Sprint(s.HTTPPort)))
	say("Now switch the boards on.")
}

func describe(segments []segment) string {
	var all []string
	for _, s := range segments {
		all = append(all, fmt.Sprintf("%s (%s)", s.Name, s.Prefix.Addr()))
	}
	return list(all)
}

func names(segments []segment) []string {
	var all []string
	for _, s := range segments {
		all = append(all, s.Name)
	}
	return all
}

func list(words []string) string { return strings.Join(words, ", ") }

func orWord(word, otherwise string) string {
	if word == "" {
		return otherwise
	}
	return word
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func port(n int) string { return fmt.Sprintf(":%d", n) }
