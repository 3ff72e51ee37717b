// Package house holds a test only: one board in a house with a router of its own, on networks with one fault each. It
// asserts how the boot ends, and the sentences that the owner reads then.
package house
