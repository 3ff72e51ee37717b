package link

import (
	"fmt"
	"net"
	"time"
)

// Schedule says how long to wait until a lease of the given age is to be renewed.
func Schedule(l Lease, age time.Duration) time.Duration { return max(l.Renew-age, 0) + time.Second }

// Retry says how long to wait after a renewal that failed.
func Retry(l Lease) time.Duration { return min(max(l.Life/16, 10*time.Second), 5*time.Minute) }

// Named is i under its present name: udev may have renamed it.
func Named(i Interface) (Interface, error) {
	now, err := net.InterfaceByIndex(i.Index)
	if err != nil {
		return i, fmt.Errorf("the interface %s is gone: %w", i.Name, err)
	}
	i.Name = now.Name
	return i, nil
}
