// Package pisim is a Raspberry Pi's boot ROM, bootcode.bin and start.elf in software: what a board sends, byte for
// byte, in which order it asks, how impatient it is and what it does not understand, as collected with sources in
// the notes on network boot that "§" refers to. It shares no code with the server that it tests.
//
// Boards are plugged into a Segment, an Ethernet switch in this process; Segment.Uplink connects it with a real
// interface, Segment.Host with a server in the same process. A Model is data: its stages, their knobs and the order
// of their requests. Board.Boot runs one board, Fleet many; each gives a Report.
package pisim
