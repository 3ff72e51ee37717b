package repo

import (
	"time"

	"bramble/boot"
	"bramble/configs/policy"
	"bramble/firstboot/wire"
	"bramble/node"
)

// Snapshot is the whole configuration at one moment. It is never changed, and needs no repository any more.
type Snapshot struct {
	Commit string           // of the first repository; of a record of all commits when there are several
	Title  string           // first line of the commit's message
	Users  []wire.LoginUser // to be made on every node
	Way    string           // how Salt gets onto the nodes: policy.Layered, Apt or Wheel
	Layers []Layer          // that profiles may name

	policy *policy.Policy
	every  time.Duration
	tar    []byte
	sha    string
}

// Layer is a layer with the keys that sign its repository.
type Layer struct {
	policy.Layer
	Keys []byte // content of the file Keyring
}

// Rules adds the configuration to the rules of the settings and the catalogue.
func (s *Snapshot) Rules(base boot.Rules) boot.Rules {
	base = s.policy.Rules(base)
	base.Commit = s.Commit
	return base
}

// Salt is how Salt runs on a node.
func (s *Snapshot) Salt(n node.State) wire.Salt { return s.policy.SaltOf(n, s.every) }

// Tree is the tar of a node's Salt files, below states and pillar, with its SHA-256 in hex. Callers leave it unchanged.
func (s *Snapshot) Tree(node.State) (tar []byte, sha string, err error) { return s.tar, s.sha, nil }

// nothing is the snapshot before there is any configuration: the settings hold, and Salt is off.
func nothing() (*Snapshot, error) {
	p := policy.Default()
	p.Salt.Mode = policy.None
	tar, sha, err := pack(nil, nil)
	return &Snapshot{policy: p, tar: tar, sha: sha, Way: p.Salt.Way}, err
}
