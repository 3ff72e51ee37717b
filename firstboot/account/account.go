// Package account edits a system's user database so that somebody can log in by key. It is text in, text out.
package account

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bramble/firstboot/wire"
)

// Files are the contents of /etc/passwd, shadow, group and gshadow. GShadow is empty on a system without that file.
type Files struct{ Passwd, Shadow, Group, GShadow string }

// User is the account as it is after Ensure.
type User struct {
	UID, GID int
	Home     string
}

// groups are those that Raspberry Pi OS puts its first user into (pi-gen, stage1/01-sys-tweaks). Those that the system
// does not have are left out.
var groups = []string{
	"adm", "dialout", "cdrom", "sudo", "audio", "video", "plugdev", "games", "users", "input", "render", "netdev",
	"gpio", "i2c", "spi",
}

// validName is what useradd accepts, without regexp: that package is large, and this one crosses TFTP.
func validName(s string) bool {
	for i, r := range s {
		if (r < 'a' || r > 'z') && r != '_' && (i == 0 || r != '-' && (r < '0' || r > '9')) {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

// Ensure makes the account able to log in by key: an existing one gets a shell if it has none, a password that matches
// nothing instead of a lock, and no expiry; an absent one is added. Its groups are those of Raspberry Pi OS.
func Ensure(f Files, u wire.User) (Files, User, error) {
	if !validName(u.Name) {
		return f, User{}, fmt.Errorf("%q is no name for a user; it has up to 32 lower-case letters, digits, - and _", u.Name)
	}
	passwd, shadow, group, gshadow := parse(f.Passwd), parse(f.Shadow), parse(f.Group), parse(f.GShadow)
	user, err := account(passwd, &group, &gshadow, f.GShadow != "", u)
	if err != nil {
		return f, User{}, err
	}
	unlock(&shadow, u.Name)
	for _, name := range groups {
		join(group, name, u.Name)
		join(gshadow, name, u.Name)
	}
	if passwd.find(u.Name) == nil {
		passwd = append(passwd, []string{u.Name, "x", strconv.Itoa(user.UID), strconv.Itoa(user.GID), "", user.Home, shell})
	}
	return Files{passwd.String(), shadow.String(), group.String(), gshadow.String()}, user, nil
}

const shell = "/bin/bash"

// account reads or invents the account, and gives an existing one a shell.
func account(passwd table, group, gshadow *table, hasGShadow bool, u wire.User) (User, error) {
	if row := passwd.find(u.Name); row != nil {
		if len(row) < 7 {
			return User{}, fmt.Errorf("the line of %s in /etc/passwd has %d fields instead of 7", u.Name, len(row))
		}
		uid, err := strconv.Atoi(row[2])
		gid, err2 := strconv.Atoi(row[3])
		if err != nil || err2 != nil {
			return User{}, fmt.Errorf("the line of %s in /etc/passwd has no numbers for user and group", u.Name)
		}
		if slices.Contains([]string{"", "/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/usr/bin/false"}, row[6]) {
			row[6] = shell
		}
		row[1] = "x"
		return User{uid, gid, row[5]}, nil
	}
	user := User{UID: passwd.free(2, u.UID), Home: "/home/" + u.Name}
	if row := group.find(u.Name); len(row) > 2 {
		gid, err := strconv.Atoi(row[2])
		if err != nil {
			return User{}, fmt.Errorf("the group %s has no number", u.Name)
		}
		user.GID = gid
		return user, nil
	}
	user.GID = group.free(2, user.UID)
	*group = append(*group, []string{u.Name, "x", strconv.Itoa(user.GID), ""})
	if hasGShadow {
		*gshadow = append(*gshadow, []string{u.Name, "!", "", ""})
	}
	return user, nil
}

// unlock gives the account the password field "*": no password matches it, and unlike "!" it is no lock.
func unlock(shadow *table, name string) {
	row := shadow.find(name)
	if row == nil {
		*shadow = append(*shadow, []string{name, "*", "", "0", "99999", "7", "", "", ""})
		return
	}
	for len(row) < 9 {
		row = append(row, "")
	}
	if row[1] == "" || strings.HasPrefix(row[1], "!") {
		row[1] = "*"
	}
	if row[2] == "0" { // the password has to be changed at the next login
		row[2] = ""
	}
	row[7] = "" // expiry
	for i := range *shadow {
		if (*shadow)[i][0] == name {
			(*shadow)[i] = row
		}
	}
}

// join adds the user to the members of a group that exists.
func join(group table, name, user string) {
	row := group.find(name)
	if len(row) < 4 {
		return
	}
	members := strings.FieldsFunc(row[3], func(r rune) bool { return r == ',' })
	if !slices.Contains(members, user) {
		row[3] = strings.Join(append(members, user), ",")
	}
}

// table is a file of lines with fields between colons. What is no such line is kept as it is.
type table [][]string

func parse(text string) table {
	var t table
	for line := range strings.Lines(text) {
		t = append(t, strings.Split(strings.TrimSuffix(line, "\n"), ":"))
	}
	return t
}

func (t table) String() string {
	var b strings.Builder
	for _, row := range t {
		b.WriteString(strings.Join(row, ":") + "\n")
	}
	return b.String()
}

func (t table) find(name string) []string {
	for _, row := range t {
		if row[0] == name {
			return row
		}
	}
	return nil
}

// free is the first number from want on, and from 1000 on, that no row has in the field.
func (t table) free(field, want int) int {
	used := map[string]bool{}
	for _, row := range t {
		if len(row) > field {
			used[row[field]] = true
		}
	}
	n := max(want, 1000)
	for used[strconv.Itoa(n)] {
		n++
	}
	return n
}
