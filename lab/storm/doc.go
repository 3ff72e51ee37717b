// Package storm holds a test only: many boards powered on at once, with frames lost, against bramble's own servers.
package storm
