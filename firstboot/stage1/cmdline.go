package stage1

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"bramble/firstboot/wire"
	"bramble/node"
)

// Words splits a kernel command line as the kernel does: at spaces outside of double quotes, which are dropped. Of a
// word given twice the last one counts.
func Words(cmdline string) map[string]string {
	words := map[string]string{}
	quoted := false
	for _, field := range strings.FieldsFunc(cmdline, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t' || r == '\n')
	}) {
		name, value, _ := strings.Cut(strings.ReplaceAll(field, `"`, ""), "=")
		words[name] = value
	}
	return words
}

// Orders are what the command line says to stage 1.
type Orders struct {
	Server string // host:port
	Boot   node.BootID
	MAC    node.MAC // zero if the command line does not say
}

// ErrOrders is in the error of a command line that stage 1 cannot boot with. Only another boot brings another one.
var ErrOrders = errors.New("the kernel command line is not for stage 1")

// ReadOrders takes the orders from a command line.
func ReadOrders(cmdline string) (Orders, error) {
	words := Words(cmdline)
	o := Orders{Server: words[wire.ServerWord], Boot: node.BootID(words[wire.BootWord])}
	if _, err := netip.ParseAddrPort(o.Server); err != nil {
		return o, fmt.Errorf("%w: %s=%q is no address and port like 192.168.1.2:8080", ErrOrders, wire.ServerWord, o.Server)
	}
	if strings.ContainsFunc(string(o.Boot), func(r rune) bool { return !strings.ContainsRune("0123456789abcdef", r) }) {
		return o, fmt.Errorf("%w: %s=%q is no boot", ErrOrders, wire.BootWord, o.Boot)
	}
	if word := words[wire.MACWord]; word != "" {
		mac, err := node.ParseMAC(word)
		if err != nil {
			return o, fmt.Errorf("%w: %s: %w", ErrOrders, wire.MACWord, err)
		}
		o.MAC = mac
	}
	return o, nil
}
