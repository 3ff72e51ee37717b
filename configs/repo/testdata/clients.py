"""What Salt's gitfs providers do, against the appliance: clients.py URL TOKEN. Prints a line for each thing done."""
import pathlib, sys, tempfile
import git, pygit2

url, token = sys.argv[1:]
dir = pathlib.Path(tempfile.mkdtemp())


class Callbacks(pygit2.RemoteCallbacks):
    said = ""

    def credentials(self, url, username_from_url, allowed_types):
        return pygit2.UserPass("admin", token)

    def sideband_progress(self, string):
        self.said += string

    def push_update_reference(self, refname, message):
        self.said += message or ""


me = pygit2.Signature("Ada", "ada@example.org")


def commit(repo, name, text):
    (dir / "pygit2" / name).write_text(text)
    repo.index.read()
    repo.index.add(name)
    repo.index.write()
    return repo.create_commit("refs/heads/main", me, me, "Change " + name, repo.index.write_tree(), [repo.head.target])


p = pygit2.clone_repository(url, str(dir / "pygit2"), callbacks=Callbacks())
print("pygit2 clone", p.head.target)
new = commit(p, "README.md", "pygit2")
p.remotes["origin"].push(["refs/heads/main"], callbacks=Callbacks())
print("pygit2 push", new)

g = git.Repo.clone_from(url.replace("://", "://admin:%s@" % token), str(dir / "git"), depth=1)
print("GitPython clone", g.head.commit.hexsha)
(dir / "git" / "README.md").write_text("GitPython")
g.index.add(["README.md"])
new = g.index.commit("Change README.md")
g.remotes.origin.push("main")[0].summary
print("GitPython push", new.hexsha)

got = p.remotes["origin"].fetch(callbacks=Callbacks())
print("pygit2 fetch", p.references["refs/remotes/origin/main"].target, got.received_objects, "objects")
p.reset(p.references["refs/remotes/origin/main"].target, pygit2.GIT_RESET_HARD)
commit(p, "bramble.yaml", "nodez: 1\n")
told = Callbacks()
p.remotes["origin"].push(["refs/heads/main"], callbacks=told)
print("pygit2 told", " ".join(told.said.split()))
