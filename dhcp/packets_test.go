package dhcp

import (
	"encoding/binary"
	"encoding/hex"

	"bramble/node"
)

// The options of pi-netboot.md section 6, from the magic cookie on.
const (
	options3B     = "63825363350101370c2b3c438081828384858687425d0200005e03010201611100444444444444444444444444444444443c20505845436c69656e743a417263683a30303030303a554e44493a303032303031ff"
	options3BPlus = "63825363350101370e2b3c4380818283848586874201035d0200005e030102016111002e20694c2e20694c2e20694c2e20694c3c20505845436c69656e743a417263683a30303030303a554e44493a303032303031ff"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// request is a client's packet: a BOOTP head as the ROM sends it, and options in hex from the magic cookie on.
func request(xid uint32, mac string, options string) []byte {
	b := make([]byte, headLen)
	b[0], b[1], b[2] = 1, 1, 6
	binary.BigEndian.PutUint32(b[4:], xid)
	m, err := node.ParseMAC(mac)
	if err != nil {
		panic(err)
	}
	copy(b[28:], m[:])
	return append(b, unhex(options)...)
}

const (
	cookie   = "63825363"
	discover = "350101"
	asRouter = "350103"
	sorted55 = "370e0103" + "2b3c4243" + "8081828384858687"
	arch0    = "5d020000"
	undi     = "5e03010201"
	class60  = "3c20505845436c69656e743a417263683a30303030303a554e44493a303032303031"
	end      = "ff"
	// revision a03111, MAC dc:a6:32:2e:f8:ed, serial 5b154510
	guidPi4      = "611100" + "52506934" + "1131a000" + "322ef8ed" + "1045155b"
	guidPi4Other = "611100" + "34695052" + "00a03111" + "322ef8ed" + "5b154510"
	guidPi5      = "611100" + "52506935" + "7041c000" + "67aabbcc" + "78563412"
	guidOld4     = "611100" + "1045155b" + "1045155b" + "1045155b" + "1045155b"
	guidPC       = "611100" + "4c4c4544003457108031b7c04f4c4e32"
	guidZero     = "611100" + "00000000000000000000000000000000"
	guidSerial   = "611100" + "2e20694c2e20694c2e20694c2e20694c"
)

// The clients of the tests.
func discover3B() []byte     { return request(0x26f30339, "b8:27:eb:01:02:03", options3B) }
func discover3BPlus() []byte { return request(0x26f30339, "b8:27:eb:69:20:2e", options3BPlus) }
func discoverPi4() []byte {
	return request(0x6b0b6d0f, "dc:a6:32:2e:f8:ed", cookie+discover+sorted55+arch0+undi+guidPi4+class60+end)
}
func discoverPi5() []byte {
	return request(0x12345678, "2c:cf:67:aa:bb:cc", cookie+discover+sorted55+arch0+undi+guidPi5+class60+end)
}

// lines is a packet as hex, 16 bytes a line, for golden files that people can read in a diff.
func lines(b []byte) []byte {
	var out []byte
	for len(b) > 0 {
		n := min(16, len(b))
		out = append(hex.AppendEncode(out, b[:n]), '\n')
		b = b[n:]
	}
	return out
}
