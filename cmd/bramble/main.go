// Bramble brings Raspberry Pis to life over the network. This page is the whole appliance; README.md tells how to use
// it, docs/boot.md what happens on the wire.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"bramble/boot"
	"bramble/configs"
	"bramble/dhcp"
	"bramble/firstboot/wire"
	"bramble/images"
	"bramble/internal/neigh"
	"bramble/internal/task"
	"bramble/journal"
	"bramble/nbd"
	"bramble/node"
	"bramble/tftp"
	"bramble/tftp/tree"
	"bramble/web"
)

var version = "unknown" // set by make build

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bramble:", err)
		os.Exit(1)
	}
}

// serve is the appliance: one journal, one desk that decides, and the servers that ask it.
func serve(ctx context.Context, s configs.Settings, log *slog.Logger) (err error) {
	segs, err := segments(s.Interfaces)
	if err != nil {
		return err
	}
	keys, keyFiles, err := authorizedKeys(s.Keys)
	if err != nil {
		return err
	}
	stage1, err := stage1Program()
	if err != nil {
		return err
	}
	secrets, err := openState(s.StateDir)
	if err != nil {
		return err
	}
	catalogue, err := images.Open(filepath.Join(s.StateDir, "images"), images.Options{ListURL: s.ImageList, Log: log})
	if err != nil {
		return err
	}
	image, err := obtain(ctx, catalogue, s)
	if err != nil {
		return err
	}
	journal, err := journal.Open(ctx, journal.Options{Dir: filepath.Join(s.StateDir, "journal"), Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, journal.Close()) }()

	shelf := newShelf(catalogue, stage1)
	policy := &policy{catalogue: catalogue, rules: rules(s, image, keys)}
	if _, err := policy.refresh(); err != nil {
		return err
	}
	config, err := openConfig(s, secrets.token, journal.Record, log)
	if err != nil {
		return err
	}
	present := func() boot.Rules { return config.Current().Rules(policy.Rules()) }
	neighbour := new(neigh.Table).Lookup
	render := func(p boot.Plan) ([]byte, error) { return nodeFiles(p, secrets.seed) }
	desk := &boot.Desk{Nodes: journal.Nodes(), Rules: present, At: rulesAt(config, policy.Rules), Record: journal.Record, Now: time.Now}
	files := &tree.Tree{Desk: desk, Shelf: shelf, MAC: neighbour, HTTP: s.HTTPPort}
	blocks := &blocks{journal: journal}

	dhcpServer := &dhcp.Server{Interfaces: names(segs), Ask: desk.Ask, Record: journal.Record, Nodes: journal.Nodes(), Authority: authority(s), Log: log}
	tftpServer := &tftp.Server{Tree: files, Log: log, Observe: func(r tftp.Report) {
		if e, ok := files.Event(r); ok {
			journal.Record(e)
		}
	}}
	nbdServer := &nbd.Server{Exports: shelf, List: true, Logger: log, Opened: blocks.opened, Closed: blocks.closed, MaxConnsPerPeer: 1024}
	webServer := &web.Server{
		Addr: port(s.HTTPPort), TLSAddr: port(s.HTTPSPort), CertFile: filepath.Join(s.StateDir, "https.pem"),
		Token: secrets.token, Private: s.Private, Version: version, Journal: journal, Desk: desk, Rules: present, Neighbour: neighbour, Log: log,
		Root: func(host netip.Addr, p boot.Plan) (wire.Block, error) {
			img, err := shelf.get(p.Image)
			if err != nil {
				return wire.Block{}, err
			}
			return wire.Block{Addr: net.JoinHostPort(host.String(), strconv.Itoa(s.NBDPort)), Export: p.Image, FSType: img.Root().FSType}, nil
		},
		Files:  render,
		Images: func() []apiImage { return listImages(catalogue) },
		Routes: (&configAPI{store: config, nodes: journal.Nodes(), base: policy.Rules, files: render, now: time.Now}).routes,
		Git:    config.Handler(),
	}

	// Listen on everything first: a busy port is an error before any board is answered.
	tftpConn, err := listenTFTP()
	if err != nil {
		return err
	}
	defer tftpConn.Close()
	nbdListener, err := net.Listen("tcp4", port(s.NBDPort))
	if err != nil {
		return fmt.Errorf("the block server cannot listen on port %d; another program may use it, choose another with --nbd-port: %w", s.NBDPort, err)
	}
	defer nbdListener.Close()
	if err := webServer.Listen(); err != nil {
		return err
	}
	tasks := []task.Task{
		{Name: "tftp", Run: func(ctx context.Context) error { return tftpServer.Serve(ctx, tftpConn) }},
		{Name: "nbd", Run: func(ctx context.Context) error { return nbdServer.Serve(ctx, nbdListener) }},
		{Name: "web", Run: webServer.Serve},
		{Name: "config", Run: config.Run},
		{Name: "catalogue", Run: func(ctx context.Context) error { return watchCatalogue(ctx, policy, log) }},
		{Name: "stage 1", Run: func(ctx context.Context) error { return prepare(ctx, shelf, image.ID, log) }},
	}
	if s.DHCP != "off" {
		if err := dhcpServer.Listen(); err != nil {
			return err
		}
		tasks = append(tasks, task.Task{Name: "dhcp", Run: dhcpServer.Run})
	}
	announce(os.Stdout, s, segs, image, keys, keyFiles)
	journal.Record(node.Event{Kind: node.Started, Text: "bramble " + version + " serves on " + list(names(segs)) + "."})
	return task.Run(ctx, log, tasks...)
}
