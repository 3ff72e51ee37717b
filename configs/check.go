package configs

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"bramble/boot"
	"bramble/configs/policy"
	"bramble/configs/words"
	"bramble/node"
)

type loader struct {
	v     *viper.Viper
	flags *pflag.FlagSet
	file  string
}

// from says where a key's value was set, for error sentences.
func (l loader) from(key string) string {
	if f := l.flags.Lookup(key); f != nil && f.Changed {
		return "--" + key
	}
	env := EnvPrefix + "_" + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
	if _, set := os.LookupEnv(env); set && !slices.Contains(fileOnly, key) {
		return env
	}
	if l.file != "" && l.v.InConfig(key) {
		return l.file + ": " + key
	}
	return key
}

func (l loader) bad(key string, value any, remedy string) error {
	return fmt.Errorf("%s is %q; %s", l.from(key), fmt.Sprint(value), remedy)
}

func (l loader) settings() (Settings, error) {
	var s Settings
	for _, o := range options() {
		if _, err := convert(l.v.Get(o.name), o.value); err != nil {
			return s, l.bad(o.name, l.v.Get(o.name), err.Error())
		}
	}
	err := l.v.UnmarshalExact(&s, viper.DecodeHook(mapstructure.ComposeDecodeHookFunc(
		mapstructure.StringToTimeDurationHookFunc(), mapstructure.StringToSliceHookFunc(","))))
	if err != nil {
		return s, fmt.Errorf("%s: %w", l.from("nodes"), err)
	}
	return s, errors.Join(l.checkWords(&s), l.checkNetwork(&s), l.checkNodes(&s), l.checkConfig(&s))
}

// convert tells in words why a value does not have the type of its option.
func convert(value, like any) (any, error) {
	var config mapstructure.DecoderConfig
	config.WeaklyTypedInput = true
	config.DecodeHook = mapstructure.StringToTimeDurationHookFunc()
	var want string
	switch like.(type) {
	case int:
		config.Result, want = new(int), "write a number"
	case bool:
		config.Result, want = new(bool), "write true or false"
	case time.Duration:
		config.Result, want = new(time.Duration), "write a duration like 90s or 1h"
	case []string:
		config.Result, want = new([]string), "write a list of words"
	default:
		config.Result, want = new(string), "write a word"
	}
	d, err := mapstructure.NewDecoder(&config)
	if err == nil {
		err = d.Decode(value)
	}
	if err != nil {
		return nil, errors.New(want)
	}
	return config.Result, nil
}

func (l loader) checkWords(s *Settings) error {
	var bad []error
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, s.LogLevel) {
		bad = append(bad, l.bad("log-level", s.LogLevel, "write debug, info, warn or error"))
	}
	if s.User != "" && !words.ValidLogin(s.User) {
		bad = append(bad, l.bad("user", s.User, "a login has small letters, digits, - and _, starts with a letter and has at most 32 characters"))
	}
	if s.NamePrefix != "" && !words.ValidHost(s.NamePrefix+"0") {
		bad = append(bad, l.bad("name-prefix", s.NamePrefix, "a host name has letters, digits and - only"))
	}
	for _, port := range []struct {
		key   string
		value int
	}{{"http-port", s.HTTPPort}, {"https-port", s.HTTPSPort}, {"nbd-port", s.NBDPort}} {
		if port.value < 1 || port.value > 65535 {
			bad = append(bad, l.bad(port.key, port.value, "a port is a number from 1 to 65535"))
		}
	}
	return errors.Join(bad...)
}

func (l loader) checkNetwork(s *Settings) error {
	switch s.DHCP {
	case "proxy", "off":
		if s.Range != "" {
			return l.bad("range", s.Range, "a range goes with --dhcp=authoritative only: beside a router, the router gives the addresses")
		}
		return nil
	case "authoritative":
	default:
		return l.bad("dhcp", s.DHCP, "write proxy, authoritative or off")
	}
	first, last, ok := strings.Cut(s.Range, "-")
	var err1, err2 error
	s.First, err1 = netip.ParseAddr(strings.TrimSpace(first))
	s.Last, err2 = netip.ParseAddr(strings.TrimSpace(last))
	if !ok || err1 != nil || err2 != nil || !s.First.Is4() || !s.Last.Is4() || s.Last.Less(s.First) {
		return l.bad("range", s.Range, "--dhcp=authoritative needs the addresses to give out, like 10.0.0.100-10.0.0.199")
	}
	if s.Router != "" {
		if s.RouterAddr, err1 = netip.ParseAddr(s.Router); err1 != nil || !s.RouterAddr.Is4() {
			return l.bad("router", s.Router, "write an IPv4 address")
		}
	}
	for _, word := range s.DNS {
		a, err := netip.ParseAddr(word)
		if err != nil || !a.Is4() {
			return l.bad("dns", word, "write IPv4 addresses")
		}
		s.DNSAddrs = append(s.DNSAddrs, a)
	}
	return nil
}

func (l loader) checkNodes(s *Settings) error {
	var bad []error
	for i, n := range s.Nodes {
		rule, err := n.rule()
		if err != nil {
			bad = append(bad, fmt.Errorf("%s, entry %d: %w", l.from("nodes"), i+1, err))
		}
		s.Rules = append(s.Rules, rule)
	}
	return errors.Join(bad...)
}

func (l loader) checkConfig(s *Settings) error {
	var bad []error
	if s.ConfigPoll < 5*time.Second {
		bad = append(bad, l.bad("config-poll", s.ConfigPoll, "write five seconds or more, like 30s"))
	}
	if s.ConfigRepo != "" {
		if one, err := policy.ParseSource(s.ConfigRepo); err != nil || one != (policy.Source{URL: s.ConfigRepo}) || s.ConfigRepo == policy.Own {
			bad = append(bad, l.bad("config-repo", s.ConfigRepo, "write https://…, ssh://…, user@host:path or the absolute path of a local repository"))
		}
	}
	for _, list := range []struct {
		key   string
		lines []string
		to    *[]policy.Source
	}{{"config-remote", s.ConfigRemotes, &s.States}, {"config-pillar", s.ConfigPillars, &s.Pillars}} {
		for _, line := range list.lines {
			one, err := policy.ParseSource(line)
			if err != nil {
				bad = append(bad, l.bad(list.key, line, err.Error()))
			}
			*list.to = append(*list.to, one)
		}
	}
	return errors.Join(bad...)
}

func (n Node) rule() (boot.NodeRule, error) {
	r := boot.NodeRule{Name: strings.ToLower(n.Name), Ignore: n.Ignore, Profile: boot.Profile{
		Image: n.Image, User: n.User, Keys: n.Keys, Config: n.Config, Cmdline: n.Cmdline, Overlay: n.Overlay,
	}}
	var err1, err2 error
	if n.Serial != "" {
		r.Serial, err1 = node.ParseSerial(n.Serial)
	}
	if n.MAC != "" {
		r.MAC, err2 = node.ParseMAC(n.MAC)
	}
	switch {
	case err1 != nil || err2 != nil:
		return r, errors.Join(err1, err2)
	case n.Serial == "" && n.MAC == "":
		return r, errors.New("it names no board; add the key serial or mac")
	case n.Name != "" && !words.ValidHost(n.Name):
		return r, fmt.Errorf("name is %q; a host name has letters, digits and - only, at most 63", n.Name)
	case n.User != "" && !words.ValidLogin(n.User):
		return r, fmt.Errorf("user is %q; a login has small letters, digits, - and _ only", n.User)
	}
	return r, nil
}
