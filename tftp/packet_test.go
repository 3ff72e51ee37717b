package tftp

import (
	"bytes"
	"encoding/hex"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The requests of pi-netboot.md section 6.
var vectors = map[string]struct {
	hex  string
	want request
}{
	"rom":       {"0001626f6f74636f64652e62696e006f6374657400", request{name: "bootcode.bin", octet: true}},
	"bootsig":   {"0001626f6f747369672e62696e006f6374657400", request{name: "bootsig.bin", octet: true}},
	"start.elf": {"000165316666646130382f73746172742e656c66006f63746574007473697a65003000", request{name: "e1ffda08/start.elf", octet: true, options: []option{{"tsize", "0"}}}},
	"config":    {"000138396562396262392f636f6e6669672e747874006f63746574007473697a65003000", request{name: "89eb9bb9/config.txt", octet: true, options: []option{{"tsize", "0"}}}},
	"kernel":    {"000138623037626363362f6b65726e656c382e696d67006f63746574007473697a65003000626c6b73697a65003134363800", request{name: "8b07bcc6/kernel8.img", octet: true, options: []option{{"tsize", "0"}, {"blksize", "1468"}}}},
}

func TestParseRequest(t *testing.T) {
	for name, v := range vectors {
		got, err := parseRequest(unhex(t, v.hex))
		if diff := cmp.Diff(v.want, got, cmp.AllowUnexported(request{}, option{})); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	for name, c := range map[string]struct {
		in   string
		want request
	}{
		"upper case":       {"\x00\x01a\x00OCTET\x00TSIZE\x000\x00BlkSize\x001024\x00", request{name: "a", octet: true, options: []option{{"tsize", "0"}, {"blksize", "1024"}}}},
		"netascii":         {"\x00\x01a\x00NetASCII\x00", request{name: "a"}},
		"leading slashes":  {"\x00\x01//a/b\x00octet\x00", request{name: "a/b", octet: true}},
		"way out":          {"\x00\x01../../etc/passwd\x00octet\x00", request{name: "etc/passwd", octet: true}},
		"write":            {"\x00\x02a\x00octet\x00", request{write: true, name: "a", octet: true}},
		"unfinished value": {"\x00\x01a\x00octet\x00tsize\x000", request{name: "a", octet: true}},
	} {
		got, err := parseRequest([]byte(c.in))
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(request{}, option{})); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	for _, bad := range []string{"", "\x00", "\x00\x01", "\x00\x01a", "\x00\x01a\x00octet", "\x00\x01\x00octet\x00", "\x00\x01a\x00mail\x00",
		"\x00\x03\x00\x01data", "\x00\x04\x00\x01", "\x00\x05\x00\x00Early terminate\x00", "\x01\x01a\x00octet\x00", "\x00\x01" + strings.Repeat("a", 1500) + "\x00octet\x00"} {
		if got, err := parseRequest([]byte(bad)); err == nil {
			t.Errorf("parseRequest(%q) = %+v; want an error", bad, got)
		}
	}
}

func TestNegotiate(t *testing.T) {
	for _, c := range []struct {
		options string // name, value, …
		octet   bool
		oack    string
		block   int
	}{
		{"", true, "", 512},
		{"tsize 0", true, "tsize 6660", 512},
		{"tsize 0", false, "", 512},
		{"tsize 0 blksize 1468", true, "tsize 6660 blksize 1468", 1468},
		{"blksize 1024 tsize 0", true, "blksize 1024 tsize 6660", 1024},
		{"blksize 65464", true, "blksize 1468", 1468},
		{"blksize 8", true, "blksize 8", 8},
		{"blksize 7", true, "", 512},
		{"blksize many", true, "", 512},
		{"blksize -1", true, "", 512},
		{"timeout 1 windowsize 16 tsize 0", true, "tsize 6660", 512},
		{"tsize 0 tsize 0 blksize 512 blksize 1024", true, "tsize 6660 blksize 512", 512},
	} {
		q := request{octet: c.octet, options: pairs(c.options)}
		accepted, block := q.negotiate(6660, maxBlock4)
		if diff := cmp.Diff(pairs(c.oack), accepted, cmp.AllowUnexported(option{})); diff != "" || block != c.block {
			t.Errorf("negotiate(%q): block %d, want %d\n%s", c.options, block, c.block, diff)
		}
	}
}

func pairs(s string) (all []option) {
	f := strings.Fields(s)
	for i := 0; i+1 < len(f); i += 2 {
		all = append(all, option{f[i], f[i+1]})
	}
	return all
}

func TestEncode(t *testing.T) {
	for want, got := range map[string][]byte{
		"00067473697a65003239363532313600":         appendOACK(nil, []option{{"tsize", "2965216"}}),
		"00067473697a65003230373500":               appendOACK(nil, []option{{"tsize", "2075"}}),
		"000500004561726c79207465726d696e61746500": appendERROR(nil, codeUndefined, "Early terminate"),
		"0005000146696c65206e6f7420666f756e6400":   appendERROR(nil, codeNotFound, textNotFound),
	} {
		if hex.EncodeToString(got) != want {
			t.Errorf("got %x; want %s", got, want)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, v := range vectors {
		f.Add(unhex(f, v.hex))
	}
	f.Add([]byte("\x00\x01..0\x00octet\x00"))
	f.Add([]byte("\x00\x02../../x\x00NETASCII\x00blksize\x00-9\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := parseRequest(b)
		if err != nil {
			return
		}
		if q.valid() && (!fs.ValidPath(q.name) || q.name == ".." || strings.HasPrefix(q.name, "../")) {
			t.Fatalf("the name %q is not confined", q.name)
		}
		accepted, block := q.negotiate(1, maxBlock4)
		if block < minBlock || block > maxBlock4 || len(appendOACK(nil, accepted)) > 64 {
			t.Fatalf("negotiated %v, block %d", accepted, block)
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add([]byte("\x00\x04\x00\x00"))
	f.Add([]byte("\x00\x05\x00\x00Early terminate\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := parseReply(b)
		if r.op != 0 && r.op != opACK && r.op != opERROR || len(r.text) > len(b) || bytes.ContainsAny([]byte(r.text), "\x00\x1b\n") {
			t.Fatalf("parseReply(%q) = %+v", b, r)
		}
	})
}
