// Package nbd serves read-only block devices over the Network Block Device
// protocol and shakes hands as a client.
//
// The protocol is described at
// https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md; section
// names in the comments below are that document's. The server speaks fixed
// newstyle negotiation with NO_ZEROES and simple replies: GO, INFO,
// EXPORT_NAME, LIST and ABORT, then READ and DISC. Everything else is answered
// with the error the protocol has for it, and the connection goes on.
//
//	ln, err := net.Listen("tcp", ":10809")
//	...
//	srv := &nbd.Server{Exports: catalogue}
//	err = srv.Serve(ctx, ln) // returns when ctx ends
//
// A reply is one write: header and data lie in one buffer, and the replies to
// requests that arrived together leave together. What lies in the page cache is
// answered by the goroutine that read the request; everything else by a
// goroutine of its own, so that a slow disk never holds up a fast answer. Long
// reads of a file (see [FileSection]) go out by sendfile(2) and are not copied.
//
// What a stranger can make the server hold is bounded: connections in all and
// for each peer, the time of a handshake, requests in flight for a connection,
// and the memory of all replies in flight. No connection ever waits for memory
// that another one holds.
//
// The client side, [Negotiate], reads and writes exactly the handshake, so that
// the socket can be handed to the kernel afterwards. The package builds on
// Linux.
package nbd
