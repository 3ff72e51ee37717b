package tftp

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// transfer is one request from its RRQ to its end. One goroutine runs it over a socket of its own, which is
// connected to the client: nobody else's datagrams come in, and the kernel tells when the client's port is closed.
type transfer struct {
	server   *running
	peer     Peer
	request  request
	began    time.Time
	cancel   context.CancelFunc
	replaced atomic.Bool // set before cancel when a newer request of the same client port takes over
	acked    atomic.Bool // anything was acknowledged
	closing  atomic.Bool // the last block is on its way

	conn   *net.UDPConn
	round  roundTrip
	resent int
	said   string // the client's ERROR text
	in     [128]byte
}

// run answers the request. ctx ends when the server stops or the transfer is replaced.
func (t *transfer) run(ctx context.Context) {
	if t.request.write {
		t.refuse(codeAccess, "This server does not take files.")
		t.server.tell(t.report(Refused, "A write request was refused: this server only sends files."))
		return
	}
	file, err := t.open(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		t.refuse(codeNotFound, "File not found")
		t.server.tell(t.report(Missed, ""))
		return
	case err != nil:
		t.fail(err)
		return
	}
	defer file.Close()

	patience, release := context.WithTimeout(ctx, t.server.QueueTime)
	defer release()
	if t.server.gate.enter(patience, t.peer.Addr.Addr()) != nil {
		return // the client has long given up, or asked anew
	}
	r := t.serve(ctx, file)
	t.server.gate.leave(t.peer.Addr.Addr())
	t.server.tell(r)
}

func (t *transfer) open(ctx context.Context) (File, error) {
	if !t.request.valid() {
		return nil, fs.ErrNotExist
	}
	return t.server.Tree.Open(ctx, t.peer, t.request.name)
}

func (t *transfer) report(o Outcome, text string) Report {
	return Report{Outcome: o, Peer: t.peer, Name: t.request.name, Took: time.Since(t.began), Resent: t.resent, Text: text}
}

func (t *transfer) fail(err error) {
	t.refuse(codeUndefined, "The server cannot read this file")
	r := t.report(Failed, "")
	r.Err, r.Text = err, err.Error()
	t.server.tell(r)
}

// serve holds the whole conversation about a file that is there.
func (t *transfer) serve(ctx context.Context, file File) Report {
	limit := t.server.Block
	if t.peer.Addr.Addr().Is6() {
		limit = min(limit, maxBlock6)
	}
	source, size := stream(file, t.request.octet)
	options, block := t.request.negotiate(size, limit)
	start := t.report(Started, "")
	start.Size, start.Block = size, block
	t.server.tell(start)

	var err error
	if t.conn, err = dial(t.peer); err != nil {
		r := t.report(Failed, err.Error())
		r.Size, r.Err = size, err
		return r
	}
	defer t.conn.Close()
	defer context.AfterFunc(ctx, func() { t.conn.Close() })()

	end, acked, err := t.converse(options, newBlocks(source, block, size))
	if end == stopped && t.replaced.Load() {
		end = replaced
	}
	if end == failed {
		t.conn.Write(appendERROR(nil, codeUndefined, "The server cannot read this file"))
	}
	r := t.report(judge(end, acked, t.acked.Load(), t.closing.Load()), "")
	r.Size, r.Bytes, r.Block, r.Err = size, min(acked*int64(block), size), block, err
	if end == finished || r.Outcome == Sent {
		r.Bytes = size
	}
	if r.Outcome == Lost || r.Outcome == Failed {
		r.Text = r.sentence(end, t.said)
		if err != nil {
			r.Text = err.Error()
		}
	}
	return r
}

// converse is the lock-step itself: OACK if options were accepted, then block for block.
func (t *transfer) converse(options []option, data *blocks) (end ending, acked int64, err error) {
	if len(options) > 0 {
		if end := t.exchange(appendOACK(nil, options), 0); end != finished {
			return end, 0, nil
		}
	}
	for number := uint16(1); ; number++ { // wraps to 0 as everybody does
		datagram, last, err := data.next(number)
		if err != nil {
			return failed, acked, err
		}
		if last {
			t.closing.Store(true)
		}
		if end := t.exchange(datagram, number); end != finished || last {
			return end, acked, nil
		}
		acked++
	}
}

// exchange sends a datagram until the client acknowledges block number. Only the timer makes it send again: a
// duplicate ACK never does (RFC 1123 section 4.2.3.1).
func (t *transfer) exchange(datagram []byte, number uint16) ending {
	first := time.Now()
	for sent := first; ; sent = time.Now() {
		t.conn.Write(datagram) // what the kernel does not take counts as lost on the way
		wait := t.round.timeout(sent.Sub(first))
		end, timeout := t.await(number, sent.Add(wait))
		if !timeout {
			if end == finished {
				if sent == first { // Karn: an ACK after a second copy may belong to either
					t.round.sample(time.Since(sent))
				}
				if !t.acked.Load() {
					t.acked.Store(true)
				}
			}
			return end
		}
		if time.Since(first) >= t.patience() {
			return silent
		}
		t.round.expired()
		t.resent++
	}
}

// patience is how long a silent client is kept. Whoever never acknowledged anything, or has all but the last ACK
// behind it, is soon let go.
func (t *transfer) patience() time.Duration {
	if !t.acked.Load() || t.closing.Load() {
		return min(t.server.Patience, shortPatience)
	}
	return t.server.Patience
}

// await reads until the wanted ACK, the client's ERROR, or the deadline.
func (t *transfer) await(number uint16, deadline time.Time) (end ending, timeout bool) {
	t.conn.SetReadDeadline(deadline)
	for {
		n, err := t.conn.Read(t.in[:])
		switch {
		case err == nil:
		case errors.Is(err, syscall.ECONNREFUSED):
			return gone, false
		case errors.Is(err, net.ErrClosed):
			return stopped, false
		case isTimeout(err):
			return 0, true
		default: // such as EHOSTUNREACH while ARP fails: the timer goes on
			time.Sleep(time.Millisecond)
			continue
		}
		switch r := parseReply(t.in[:n]); {
		case r.op == opACK && r.value == number:
			return finished, false
		case r.op == opERROR:
			t.said = r.text
			return aborted, false
		}
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// refuse answers with an ERROR, from a port of its own as every answer (RFC 1350 section 4).
func (t *transfer) refuse(code uint16, text string) {
	conn, err := dial(t.peer)
	if err != nil {
		return
	}
	defer conn.Close()
	conn.Write(appendERROR(nil, code, text))
}

// dial opens a socket that speaks from the address which was asked.
func dial(p Peer) (*net.UDPConn, error) {
	local := netip.AddrPortFrom(p.Local, 0)
	var from *net.UDPAddr
	if p.Local.IsValid() {
		from = net.UDPAddrFromAddrPort(local)
	}
	return net.DialUDP("udp", from, net.UDPAddrFromAddrPort(p.Addr))
}
