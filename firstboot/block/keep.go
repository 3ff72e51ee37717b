package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"bramble/firstboot/wire"
	"bramble/nbd"
)

// forever is how long readers wait for a lost connection if the plan says nothing.
const forever = 30 * 24 * time.Hour

// Attach connects to the export and makes it the device Path. The returned file is the connection's socket, which
// Keep watches; the kernel has its own hold on it. Size is the device's size in bytes.
func Attach(ctx context.Context, b wire.Block, dead time.Duration) (socket *os.File, size uint64, err error) {
	if dead <= 0 {
		dead = forever
	}
	conn, info, err := dial(ctx, b)
	if err != nil {
		return nil, 0, err
	}
	defer conn.Close()
	if err := connect(conn, info, dead); err != nil {
		return nil, 0, fmt.Errorf("the kernel does not attach the export %q of %s: %w", b.Export, b.Addr, err)
	}
	if socket, err = conn.File(); err != nil {
		return nil, 0, errors.Join(fmt.Errorf("the root's connection cannot be watched: %w", err), Detach())
	}
	return socket, info.Size, nil
}

func dial(ctx context.Context, b wire.Block) (*net.TCPConn, nbd.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, info, err := nbd.Dial(ctx, b.Addr, b.Export)
	if err != nil {
		return nil, nbd.Info{}, fmt.Errorf("the block server %s does not give the root: %w", b.Addr, err)
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, nbd.Info{}, errors.Join(fmt.Errorf("%s is not reached over TCP", b.Addr), conn.Close())
	}
	if err := vigilant(tcp); err != nil {
		return nil, nbd.Info{}, errors.Join(fmt.Errorf("the root's connection cannot be set up: %w", err), tcp.Close())
	}
	return tcp, info, nil
}

// Keep hands the kernel a new connection whenever the present one, socket, has died. It returns when ctx ends.
func Keep(ctx context.Context, log *slog.Logger, b wire.Block, size uint64, socket *os.File) error {
	for {
		if err := waitDead(ctx, socket); err != nil {
			return err
		}
		lost := time.Now()
		log.Warn(fmt.Sprintf("The connection to the root at %s is lost; readers wait for the next one.", b.Addr))
		next, err := again(ctx, log, b, size)
		if err != nil {
			return err
		}
		socket.Close() // dead, and only watched
		socket = next
		log.Info(fmt.Sprintf("The root is connected again after %v.", time.Since(lost).Round(100*time.Millisecond)))
	}
}

// waitDead waits until either side has closed the connection, or the kernel has given it up.
func waitDead(ctx context.Context, socket *os.File) error {
	for {
		fds := []unix.PollFd{{Fd: int32(socket.Fd()), Events: unix.POLLRDHUP}}
		switch n, err := unix.Poll(fds, 60_000); {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("the root's connection cannot be watched: %w", err)
		case n > 0:
			return nil
		}
	}
}

// again connects until it has worked.
func again(ctx context.Context, log *slog.Logger, b wire.Block, size uint64) (*os.File, error) {
	said := ""
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		socket, err := once(ctx, b, size)
		if err == nil {
			return socket, nil
		}
		if text := err.Error(); text != said {
			said = text
			log.Warn(text)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func once(ctx context.Context, b wire.Block, size uint64) (*os.File, error) {
	conn, info, err := dial(ctx, b)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if info.Size != size {
		return nil, fmt.Errorf("the export %q has %d bytes now, and had %d when it was mounted: this is another image; cycle the power", b.Export, info.Size, size)
	}
	socket, err := conn.File()
	if err != nil {
		return nil, fmt.Errorf("the root's connection cannot be watched: %w", err)
	}
	if err := reconnect(conn); err != nil {
		return nil, errors.Join(fmt.Errorf("the kernel does not take a new connection for the root yet: %w", err), socket.Close())
	}
	return socket, nil
}
