package repo

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"golang.org/x/crypto/ssh"
)

const (
	listLimit  = 15 * time.Second // for a remote's answer to what is new
	fetchLimit = 5 * time.Minute
)

var errNotFetched = errors.New("it was never fetched")

// refOf is where the newest commit of a remote's branch is kept in remotes.git.
func refOf(url, branch string) plumbing.ReferenceName {
	sum := sha256.Sum256([]byte(url + "\x00" + branch))
	return plumbing.ReferenceName("refs/bramble/" + hex.EncodeToString(sum[:10]))
}

// fetched is the commit that the last fetch brought.
func (s *Store) fetched(url, branch string) (string, error) {
	r, err := git.PlainOpen(s.path(remotesName))
	if err != nil {
		return "", err
	}
	ref, err := r.Reference(refOf(url, branch), true)
	if errors.Is(err, plumbing.ErrReferenceNotFound) {
		return "", fmt.Errorf("the repository %s: %w", redact(url), errNotFetched)
	}
	if err != nil {
		return "", err
	}
	return ref.Hash().String(), nil
}

// fetch brings the newest commit of a remote's branch, or of its HEAD when branch is empty.
func (s *Store) fetch(ctx context.Context, url, branch string) error {
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	fail := func(err error) error {
		if strings.HasPrefix(url, "/") || strings.HasPrefix(url, "file:") {
			return fmt.Errorf("the repository %s cannot be fetched; is it one, may bramble read it, and is git installed? %w", url, err)
		}
		return fmt.Errorf("the repository %s cannot be fetched: %w", redact(url), err)
	}
	auth, err := s.auth(url)
	if err != nil {
		return fail(err)
	}
	r, err := git.PlainOpen(s.path(remotesName))
	if err != nil {
		return fail(err)
	}
	remote := git.NewRemote(r.Storer, &config.RemoteConfig{Name: "bramble", URLs: []string{url}})
	brief, done := context.WithTimeout(ctx, listLimit)
	defer done()
	refs, err := remote.ListContext(brief, &git.ListOptions{Auth: auth})
	if err != nil {
		return fail(err)
	}
	from, hash := pick(refs, branch)
	if from == "" {
		return fail(fmt.Errorf("it has no branch %q", branch))
	}
	to := refOf(url, branch)
	if now, err := r.Reference(to, true); err == nil && now.Hash() == hash {
		if _, err := r.CommitObject(hash); err == nil {
			return nil
		}
	}
	err = remote.FetchContext(ctx, &git.FetchOptions{
		Auth: auth, Tags: git.NoTags, Force: true,
		RefSpecs: []config.RefSpec{config.RefSpec("+" + from.String() + ":" + to.String())},
	})
	if err != nil && !errors.Is(err, git.NoErrAlreadyUpToDate) {
		return fail(err)
	}
	return nil
}

// pick finds a branch, or the one that HEAD means, among a remote's references.
func pick(refs []*plumbing.Reference, branch string) (plumbing.ReferenceName, plumbing.Hash) {
	byName := map[plumbing.ReferenceName]*plumbing.Reference{}
	for _, ref := range refs {
		byName[ref.Name()] = ref
	}
	want := []plumbing.ReferenceName{plumbing.NewBranchReferenceName(branch)}
	if branch == "" {
		want = []plumbing.ReferenceName{plumbing.NewBranchReferenceName("main"), plumbing.NewBranchReferenceName("master")}
		if head := byName[plumbing.HEAD]; head != nil && head.Type() == plumbing.SymbolicReference {
			want = []plumbing.ReferenceName{head.Target()}
		}
	}
	for _, name := range want {
		if ref := byName[name]; ref != nil {
			return name, ref.Hash()
		}
	}
	return "", plumbing.ZeroHash
}

// auth is the SSH key for ssh URLs; a user and password for https stand in the URL.
func (s *Store) auth(url string) (transport.AuthMethod, error) {
	at, err := transport.NewEndpoint(url)
	if err != nil {
		return nil, errors.New("its URL is not understood")
	}
	if at.Protocol != "ssh" {
		return nil, nil
	}
	key := s.o.Key
	if key == "" {
		if key = s.path("id_ed25519"); !exists(key) {
			if err := makeKey(key); err != nil {
				return nil, fmt.Errorf("an SSH key cannot be made: %w", err)
			}
		}
	}
	user := at.User
	if user == "" {
		user = "git"
	}
	keys, err := gitssh.NewPublicKeysFromFile(user, key, "")
	if err != nil {
		return nil, fmt.Errorf("the SSH key %s cannot be used; it must be a private key without a passphrase: %w", key, err)
	}
	hosts := s.o.Hosts
	if hosts == "" {
		hosts = s.path("known_hosts")
	}
	if !exists(hosts) {
		return nil, fmt.Errorf("its host is not known; compare the keys that ssh-keyscan %s prints, put them into %s, and let %s.pub read the repository", at.Host, hosts, key)
	}
	if keys.HostKeyCallback, err = gitssh.NewKnownHostsCallback(hosts); err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", hosts, err)
	}
	return keys, nil
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// makeKey makes an SSH key and, beside it, the public half for the other side.
func makeKey(name string) error {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "bramble")
	if err != nil {
		return err
	}
	half, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	if err := writeAtomically(name+".pub", string(ssh.MarshalAuthorizedKey(half))); err != nil {
		return err
	}
	return writeAtomically(name, string(pem.EncodeToMemory(block))) // 0600, as every temporary file
}

// redact takes user and password out of a URL.
func redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.User == nil || u.Scheme == "ssh" {
		return raw
	}
	u.User = nil
	return u.String()
}
