package account

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bramble/firstboot/wire"
)

// trixie is as Raspberry Pi OS ships since April 2026: pi is locked and has no shell.
var trixie = Files{
	Passwd:  "root:x:0:0:root:/root:/bin/bash\npi:x:1000:1000::/home/pi:/usr/sbin/nologin\n",
	Shadow:  "root:*:20000:0:99999:7:::\npi:!:20000:0:99999:7:::\n",
	Group:   "root:x:0:\nsudo:x:27:pi\nvideo:x:44:\nspi:x:997:other\npi:x:1000:\n",
	GShadow: "root:*::\nsudo:*::pi\nvideo:*::\nspi:!::\npi:!::\n",
}

func TestEnsure(t *testing.T) {
	for _, c := range []struct {
		name string
		in   Files
		user wire.User
		want Files
		out  User
	}{
		{"locked", trixie, wire.User{Name: "pi", UID: 1000}, Files{
			Passwd:  "root:x:0:0:root:/root:/bin/bash\npi:x:1000:1000::/home/pi:/bin/bash\n",
			Shadow:  "root:*:20000:0:99999:7:::\npi:*:20000:0:99999:7:::\n",
			Group:   "root:x:0:\nsudo:x:27:pi\nvideo:x:44:pi\nspi:x:997:other,pi\npi:x:1000:\n",
			GShadow: "root:*::\nsudo:*::pi\nvideo:*::pi\nspi:!::pi\npi:!::\n",
		}, User{1000, 1000, "/home/pi"}},
		{"absent", trixie, wire.User{Name: "ada", UID: 1000}, Files{
			Passwd:  trixie.Passwd + "ada:x:1001:1001::/home/ada:/bin/bash\n",
			Shadow:  trixie.Shadow + "ada:*::0:99999:7:::\n",
			Group:   "root:x:0:\nsudo:x:27:pi,ada\nvideo:x:44:ada\nspi:x:997:other,ada\npi:x:1000:\nada:x:1001:\n",
			GShadow: "root:*::\nsudo:*::pi,ada\nvideo:*::ada\nspi:!::ada\npi:!::\nada:!::\n",
		}, User{1001, 1001, "/home/ada"}},
		{"its group is there", Files{Passwd: "root:x:0:0::/:\n", Group: "ada:x:50:\n"}, wire.User{Name: "ada"}, Files{
			Passwd: "root:x:0:0::/:\nada:x:1000:50::/home/ada:/bin/bash\n",
			Shadow: "ada:*::0:99999:7:::\n",
			Group:  "ada:x:50:\n",
		}, User{1000, 50, "/home/ada"}},
		{"password, expiry and shell", Files{
			Passwd: "ada:x:1003:100:Ada,,,:/srv/ada:/usr/bin/zsh",
			Shadow: "ada:$6$x$y:0:0:99999:7::1:",
		}, wire.User{Name: "ada", UID: 2000}, Files{
			Passwd: "ada:x:1003:100:Ada,,,:/srv/ada:/usr/bin/zsh\n",
			Shadow: "ada:$6$x$y::0:99999:7:::\n",
		}, User{1003, 100, "/srv/ada"}},
		{"locked with a password", Files{
			Passwd: "ada:x:1003:100:::\n", Shadow: "ada:!$6$x$y:3:0:99999:7\n",
		}, wire.User{Name: "ada"}, Files{
			Passwd: "ada:x:1003:100:::/bin/bash\n", Shadow: "ada:*:3:0:99999:7:::\n",
		}, User{1003, 100, ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, user, err := Ensure(c.in, c.user)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			if user != c.out {
				t.Errorf("user = %+v, want %+v", user, c.out)
			}
			again, _, err := Ensure(got, c.user)
			if d := cmp.Diff(got, again); d != "" || err != nil {
				t.Errorf("a second time is not the same: %v\n%s", err, d)
			}
		})
	}
}

func TestEnsureRefuses(t *testing.T) {
	for want, c := range map[string]struct {
		f Files
		u wire.User
	}{
		"no name for a user": {trixie, wire.User{Name: "a:b"}},
		"4 fields instead":   {Files{Passwd: "ada:x:1:1\n"}, wire.User{Name: "ada"}},
		"no numbers":         {Files{Passwd: "ada:x:a:1:::\n"}, wire.User{Name: "ada"}},
		"has no number":      {Files{Group: "ada:x:a:\n"}, wire.User{Name: "ada"}},
	} {
		got, _, err := Ensure(c.f, c.u)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
		if got != c.f {
			t.Errorf("%s: the files have changed all the same", want)
		}
	}
}

// FuzzEnsure: no other account changes, whatever the image's files are.
func FuzzEnsure(f *testing.F) {
	f.Add(trixie.Passwd, trixie.Shadow, trixie.Group, trixie.GShadow, "pi", 1000)
	f.Add("\n:::\nx", "ada", ":", "sudo:::", "ada", -1)
	f.Fuzz(func(t *testing.T, passwd, shadow, group, gshadow, name string, uid int) {
		in := Files{passwd, shadow, group, gshadow}
		got, user, err := Ensure(in, wire.User{Name: name, UID: uid})
		if err != nil {
			return
		}
		if user.UID == 0 && !strings.Contains(passwd, ":0:") && !strings.Contains(passwd, ":00") && !strings.Contains(passwd, ":+0") && !strings.Contains(passwd, ":-0") {
			t.Errorf("%s became root", name)
		}
		for _, pair := range [][2]string{{passwd, got.Passwd}, {shadow, got.Shadow}} {
			have := map[string]bool{}
			for line := range strings.Lines(pair[1]) {
				have[strings.TrimSuffix(line, "\n")] = true
			}
			for line := range strings.Lines(pair[0]) {
				if line = strings.TrimSuffix(line, "\n"); !strings.HasPrefix(line, name+":") && line != name && !have[line] {
					t.Errorf("the line %q is gone", line)
				}
			}
		}
	})
}
