package configs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"bramble/configs/words"
)

// Load merges flags, environment, file and defaults, and checks the result. An error names where the bad value
// came from, the key, and what to write instead.
func Load(flags *pflag.FlagSet) (Settings, error) {
	v := viper.NewWithOptions(viper.KeyDelimiter("::"), viper.EnvKeyReplacer(strings.NewReplacer("-", "_")))
	v.SetEnvPrefix(EnvPrefix)
	v.AutomaticEnv()
	for _, o := range options() {
		v.SetDefault(o.name, o.value)
		if f := flags.Lookup(o.name); f != nil && f.Changed {
			v.Set(o.name, flagValue(flags, o))
		}
	}
	file, err := readFile(v, flags)
	if err != nil {
		return Settings{}, err
	}
	l := loader{v: v, flags: flags, file: file}
	return l.settings()
}

func flagValue(flags *pflag.FlagSet, o option) any {
	if _, list := o.value.([]string); list {
		words, _ := flags.GetStringArray(o.name)
		return words
	}
	return flags.Lookup(o.name).Value.String()
}

// readFile returns the name of the file that was read, or "".
func readFile(v *viper.Viper, flags *pflag.FlagSet) (string, error) {
	file, _ := flags.GetString("config")
	named := file != ""
	if !named {
		file = DefaultFile
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("the settings file %s can't be read: %w", file, err)
	}
	return file, parse(v, file, string(text))
}

// parse reads YAML; it is apart from readFile so that it can be fuzzed.
func parse(v *viper.Viper, file, text string) error {
	v.SetConfigType("yaml")
	if err := v.ReadConfig(strings.NewReader(text)); err != nil {
		return fmt.Errorf("the settings file %s is not valid YAML: %w", file, err)
	}
	known := slices.Clone(fileOnly)
	for _, o := range options() {
		known = append(known, o.name)
	}
	for _, key := range v.AllKeys() {
		top, _, _ := strings.Cut(key, "::")
		if !slices.Contains(known, top) {
			return fmt.Errorf("%s: unknown key %q%s", file, top, words.DidYouMean(top, known, "bramble serve --help lists the keys"))
		}
	}
	return nil
}
