package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bramble/node"
)

// Authority makes a Server give out addresses too, to every client on the interface whose network holds the range:
// for a switch without a router. The other interfaces stay with proxyDHCP. Its fields are its settings.
type Authority struct {
	First, Last netip.Addr    // the range, both ends included; at most 4096 addresses
	LeaseTime   time.Duration // zero: 12 hours
	Router      netip.Addr    // default route for the clients; none is sent when invalid
	DNS         []netip.Addr  // none are sent when empty
	File        string        // where leases survive a restart; empty: nowhere

	mu      sync.Mutex
	table   *table
	busy    map[node.MAC]bool // clients whose address is being checked
	lastCry time.Time         // when the timeline last heard that the range is too small

	file  leaseFile
	saves chan lease
	lost  atomic.Bool // a lease did not reach the file: write it anew
	used  func(ifname string, a netip.Addr) (node.MAC, bool)
}

const (
	defaultLease = 12 * time.Hour
	offerHold    = time.Minute      // for a client that will send a REQUEST
	bootHold     = 10 * time.Minute // for a boot ROM, which takes the OFFER without one (FW#1699), until Linux asks
	declineHold  = 10 * time.Minute
	maxChecks    = 64 // clients whose addresses are checked at once; others have to ask again
)

// open checks the settings against the interfaces and reads the lease file.
func (a *Authority) open(ports []*port, now func() time.Time) error {
	t, err := newTable(a.First, a.Last)
	if err != nil {
		return err
	}
	networks := ""
	for _, p := range ports {
		net, err := p.address()
		if err != nil {
			networks += fmt.Sprintf(" %v.", err)
			continue
		}
		if a.rules(net) {
			return a.load(t, now())
		}
		networks += fmt.Sprintf(" %s has %s.", p.name, net)
	}
	return fmt.Errorf("the range %s-%s lies in no served interface's network.%s Choose a range inside one of them", a.First, a.Last, networks)
}

// rules reports whether the range is the network's.
func (a *Authority) rules(net netip.Prefix) bool {
	return net.Contains(a.First) && net.Contains(a.Last)
}

func (a *Authority) load(t *table, now time.Time) error {
	a.table, a.busy, a.saves = t, map[node.MAC]bool{}, make(chan lease, 256)
	if a.used == nil {
		a.used = used
	}
	if a.LeaseTime == 0 {
		a.LeaseTime = defaultLease
	}
	if a.File == "" {
		return nil
	}
	leases, err := readLeases(a.File)
	if err != nil {
		return err
	}
	for _, l := range leases {
		if latest := now.Add(a.LeaseTime); l.Until.After(latest) {
			l.Until = latest // the clock was wrong, or leases are shorter now
		}
		if t.contains(l.Addr) {
			t.put(l)
		}
	}
	a.file.path = a.File
	return a.file.rewrite(slices.Collect(maps.Values(t.byAddr)))
}

// keep writes leases to the file until ctx ends. Clients never wait for it: what a crash loses, a client's next
// REQUEST brings back, and addresses in use are found by asking the segment before they are offered.
func (a *Authority) keep(ctx context.Context, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			a.write(a.drain(nil), log)
			if a.file.f != nil {
				_ = a.file.f.Close() // synced
			}
			return
		case l := <-a.saves:
			a.write(a.drain([]lease{l}), log)
		}
	}
}

func (a *Authority) drain(batch []lease) []lease {
	for {
		select {
		case l := <-a.saves:
			batch = append(batch, l)
		default:
			return batch
		}
	}
}

func (a *Authority) write(batch []lease, log *slog.Logger) {
	if a.File == "" || len(batch) == 0 {
		return
	}
	var err error
	if a.lost.Swap(false) || a.file.lines > 4*maxRange {
		err = a.file.rewrite(a.snapshot())
	} else {
		err = a.file.append(batch)
	}
	if err != nil {
		a.lost.Store(true)
		log.Warn("leases are kept in memory only until the lease file can be written", "err", err)
	}
}

func (a *Authority) snapshot() []lease {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Values(a.table.byAddr))
}

// save hands a lease to keep. a.mu is held, so the file's order is the table's.
func (a *Authority) save(l lease) {
	select {
	case a.saves <- l:
	default:
		a.lost.Store(true)
	}
}

var errBusy = errors.New("the client's address is still being checked")

// reserve sets an address aside for a client. checked is false if it must first be asked for on the segment; the
// client is then busy until done is called.
func (a *Authority) reserve(q Query, net netip.Prefix, now time.Time) (l lease, checked bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy[q.MAC] {
		return lease{}, false, errBusy
	}
	if len(a.busy) >= maxChecks {
		return lease{}, false, errors.New("too many clients ask for an address at once; this one has to ask again")
	}
	l, err = a.take(q, net, now)
	if err != nil {
		return lease{}, false, err
	}
	old, had := a.table.of(q.MAC)
	if checked = had && old.Addr == l.Addr && old.Until.After(now); !checked {
		a.busy[q.MAC] = true
	}
	a.hold(l, q.IsNetboot() == nil)
	return l, checked, nil
}

// take chooses an address and how long the offer of it holds.
func (a *Authority) take(q Query, net netip.Prefix, now time.Time) (lease, error) {
	addr, err := a.table.choose(q.MAC, q.Requested, net, now)
	if err != nil {
		return lease{}, err
	}
	l := lease{Addr: addr, MAC: q.MAC, Until: now.Add(offerHold)}
	if q.IsNetboot() == nil {
		l.Until = now.Add(bootHold)
	}
	if old, ok := a.table.of(q.MAC); ok && old.Addr == addr && old.Until.After(l.Until) {
		l.Until = old.Until
	}
	return l, nil
}

func (a *Authority) hold(l lease, keep bool) {
	a.table.put(l)
	if keep {
		a.save(l)
	}
}

// another gives up an address that somebody uses without a lease, and reserves the next.
func (a *Authority) another(q Query, taken netip.Addr, net netip.Prefix, now time.Time) (lease, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.table.put(lease{Addr: taken, Until: now.Add(declineHold)})
	l, err := a.take(q, net, now)
	if err == nil {
		a.hold(l, q.IsNetboot() == nil)
	}
	return l, err
}

func (a *Authority) done(mac node.MAC) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.busy, mac)
}

// confirm decides about a REQUEST: the lease, or why the client cannot have it. Both zero: the REQUEST is none of
// ours (RFC 2131 section 4.3.2).
func (a *Authority) confirm(q Query, net netip.Prefix, now time.Time) (l lease, nak string) {
	want := q.Requested
	if !want.IsValid() {
		want = q.Client
	}
	if q.ServerID.IsValid() && q.ServerID != net.Addr() || !want.IsValid() {
		return lease{}, ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case !a.table.contains(want) || !usable(want, net):
		return lease{}, fmt.Sprintf("%s is no address of this network's range", want)
	case !a.table.free(want, q.MAC, net, now):
		return lease{}, fmt.Sprintf("%s is another client's", want)
	}
	l = lease{Addr: want, MAC: q.MAC, Until: now.Add(a.LeaseTime)}
	a.hold(l, true)
	return l, ""
}

// release ends a client's lease; decline also keeps the address from everybody for a while (RFC 2131 section 4.3.3).
func (a *Authority) release(mac node.MAC, addr netip.Addr, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	l, ok := a.table.of(mac)
	if !ok || l.Addr != addr {
		return false
	}
	l.Until = now
	a.hold(l, true)
	return true
}

func (a *Authority) decline(mac node.MAC, addr netip.Addr, now time.Time) bool {
	if !a.release(mac, addr, now) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.table.put(lease{Addr: addr, Until: now.Add(declineHold)})
	return true
}

// cry reports whether the timeline should hear of an exhausted range again.
func (a *Authority) cry(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.lastCry) < time.Minute {
		return false
	}
	a.lastCry = now
	return true
}
