package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"bramble/firstboot/wire"
)

// Where the keys and rights of the configuration's users are. The keys' folder is named in sshd's configuration.
const (
	keysDir    = "run/bramble/keys"
	sudoersDir = "etc/sudoers.d"
	sudoers    = "020_bramble_"
)

var validUser = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)

// makeUsers makes the configuration's users able to log in, and those of an earlier one no longer.
func (a *Agent) makeUsers(ctx context.Context, users []wire.LoginUser) (wire.StepReport, error) {
	for _, u := range users {
		if err := a.makeUser(ctx, u); err != nil {
			return wire.StepReport{}, err
		}
	}
	if err := a.dropUsers(users); err != nil {
		return wire.StepReport{}, err
	}
	return wire.StepReport{Text: fmt.Sprintf("%d users of the configuration can log in.", len(users))}, a.save("users.json", users)
}

func (a *Agent) makeUser(ctx context.Context, u wire.LoginUser) error {
	if !validUser.MatchString(u.Name) {
		return fmt.Errorf("%q is no name for a user; it has up to 32 lower-case letters, digits, - and _", u.Name)
	}
	if i := slices.IndexFunc(u.Keys, func(k string) bool { return strings.ContainsAny(k, "\n\r\x00") }); i >= 0 {
		return fmt.Errorf("key %d of %s is more than one line; write each key as an entry of its own", i+1, u.Name)
	}
	if known, err := a.knows(u.Name); err != nil {
		return err
	} else if !known {
		// The password "*" matches nothing, and unlike "!" it is no lock.
		args := []string{"--create-home", "--shell", "/bin/bash", "--password", "*", u.Name}
		if a.Root != "/" {
			args = append([]string{"--prefix", a.Root}, args...)
		}
		if err := a.Command(ctx, "useradd", args...); err != nil {
			return fmt.Errorf("the user %s cannot be made: %w", u.Name, err)
		}
	}
	if err := replace(a.path(filepath.Join(keysDir, u.Name)), []byte(strings.Join(append(slices.Clone(u.Keys), ""), "\n")), 0o644); err != nil {
		return fmt.Errorf("the keys of %s: %w", u.Name, err)
	}
	right := a.path(filepath.Join(sudoersDir, sudoers+u.Name))
	if !u.Sudo {
		return remove(right)
	}
	return replace(right, []byte(u.Name+" ALL=(ALL) NOPASSWD: ALL\n"), 0o440)
}

// knows tells whether the system has a user.
func (a *Agent) knows(name string) (bool, error) {
	text, err := os.ReadFile(a.path("etc/passwd"))
	if err != nil {
		return false, fmt.Errorf("the system's users cannot be read: %w", err)
	}
	return strings.HasPrefix(string(text), name+":") || strings.Contains(string(text), "\n"+name+":"), nil
}

// dropUsers takes keys and rights from users that the configuration does not name any more. Their files stay.
func (a *Agent) dropUsers(users []wire.LoginUser) error {
	for _, place := range []struct{ dir, prefix string }{{keysDir, ""}, {sudoersDir, sudoers}} {
		files, err := filepath.Glob(a.path(filepath.Join(place.dir, place.prefix+"*")))
		if err != nil {
			return err
		}
		for _, file := range files {
			name := strings.TrimPrefix(filepath.Base(file), place.prefix)
			if slices.ContainsFunc(users, func(u wire.LoginUser) bool { return u.Name == name }) {
				continue
			}
			if err := remove(file); err != nil {
				return err
			}
		}
	}
	return nil
}

func remove(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s cannot be removed: %w", file, err)
	}
	return nil
}
