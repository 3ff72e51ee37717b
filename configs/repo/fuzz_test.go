package repo

import (
	"bytes"
	"testing"

	"bramble/configs/policy"
)

// Whatever a push brings, the check ends with findings or an error.
func FuzzCheckTar(f *testing.F) {
	good, _, err := pack(map[string]content{"top.sls": {data: []byte("base: {}\n")}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, []byte("nodes: []"))
	f.Add([]byte("no tar"), []byte("salt: {remotes: [{url: ., root: states}]}"))
	f.Fuzz(func(t *testing.T, archive, yaml []byte) {
		if _, err := CheckTar(bytes.NewReader(archive)); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
		all := files{policy.File: {read: func() ([]byte, error) { return yaml, nil }}}
		for name, target := range map[string]string{"states/top.sls": "loop", "states/loop": "loop", "pillar/base.sls": "../" + policy.File} {
			all[name] = file{link: true, read: func() ([]byte, error) { return []byte(target), nil }}
		}
		for _, one := range checkOwn(all) {
			if one.Text == "" || one.File == "" {
				t.Errorf("finding %+v", one)
			}
		}
	})
}
