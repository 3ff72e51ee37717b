package tftp

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// A lane that had to wait for a processor, while an answer lay in its socket, hears the answer before it sends again.
func TestLaneHearsBeforeItRepeats(t *testing.T) {
	l, err := newLane(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	t.Cleanup(func() {
		go func() { defer close(stopped); l.run() }()
		l.close()
		<-stopped
	})
	client := newWire(t, netip.MustParseAddrPort("127.0.0.1:69"))
	at := client.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	talk := newTalk(netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), 0, *talkTo(5000, "tsize 0"))
	l.begin(talk)
	client.want(appendOACK(nil, pairs("tsize 0")))
	client.say(ack(0))
	time.Sleep(firstTimeout + margin) // nobody runs the lane
	l.expire(time.Now())
	client.want(data(1, string(talk.datagram[headerSize:])))
	if talk.resent != 0 {
		t.Error("the OACK was sent again although its ACK had come")
	}
}
