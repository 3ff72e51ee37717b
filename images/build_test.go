package images

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// tool runs a program that the tests need.
func tool(t testing.TB, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is not installed; run lab/setup", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, &stderr)
	}
	return out
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// recipe is an image like Raspberry Pi's, but small.
type recipe struct {
	machine byte     // ELF number of the programs; 0xb7 is arm64, 0x28 armhf
	kernels []string // file and release in turns
	modules []string // releases
	seed    string   // makes images differ
	fstype  string   // of the root; ext4 when empty
}

var standard = recipe{
	machine: 0xb7,
	kernels: []string{"kernel8.img", "6.12.47+rpt-rpi-v8", "kernel_2712.img", "6.12.47+rpt-rpi-2712"},
	modules: []string{"6.12.47+rpt-rpi-v8", "6.12.47+rpt-rpi-2712"},
}

var built sync.Map // recipe's text → bytes

const (
	bootAt, bootSize = 1 << 20, 8 << 20
	rootAt, rootSize = 9 << 20, 16 << 20
)

// build makes the image's bytes.
func build(t testing.TB, r recipe) []byte {
	t.Helper()
	key := strings.Join(append(append([]string{string(r.machine), r.seed, r.fstype, "/"}, r.kernels...), r.modules...), " ")
	if b, ok := built.Load(key); ok {
		return bytes.Clone(b.([]byte))
	}
	dir := t.TempDir()
	put := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, data, 0o755))
		return path
	}
	boot := put("boot.img", make([]byte, bootSize))
	tool(t, nil, "mkfs.fat", "-n", "bootfs", boot)
	for i := 0; i < len(r.kernels); i += 2 {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, err := w.Write([]byte("code Linux version " + r.kernels[i+1] + " (builder@host)"))
		check(t, err)
		check(t, w.Close())
		tool(t, nil, "mcopy", "-i", boot, put("k/"+r.kernels[i], z.Bytes()), "::")
	}
	tool(t, nil, "mcopy", "-i", boot, put("b/config.txt", []byte("auto_initramfs=1\n"+r.seed)), "::")
	elf := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 57)...)
	binary.LittleEndian.PutUint16(elf[18:], uint16(r.machine))
	put("root/usr/lib/systemd/systemd", elf)
	check(t, os.MkdirAll(filepath.Join(dir, "root/usr/sbin"), 0o755))
	check(t, os.Symlink("../lib/systemd/systemd", filepath.Join(dir, "root/usr/sbin/init")))
	check(t, os.Symlink("usr/sbin", filepath.Join(dir, "root/sbin")))
	check(t, os.Symlink("usr/lib", filepath.Join(dir, "root/lib")))
	put("root/etc/os-release", []byte("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n"))
	for _, release := range r.modules {
		put("root/usr/lib/modules/"+release+"/modules.dep", []byte("kernel/nbd.ko:\n"))
		put("root/usr/lib/modules/"+release+"/kernel/nbd.ko", []byte("\x7fELF nbd of "+release))
	}
	root := filepath.Join(dir, "root.img")
	if r.fstype == "squashfs" {
		check(t, os.WriteFile(root, append([]byte("hsqs"), make([]byte, rootSize-4)...), 0o600))
	} else {
		tool(t, nil, "mke2fs", "-q", "-t", "ext4", "-L", "rootfs", "-E", "root_owner=0:0,hash_seed=00000000-0000-0000-0000-000000000001",
			"-U", "00000000-0000-0000-0000-000000000002", "-d", filepath.Join(dir, "root"), root, "16M")
	}
	disk := put("disk.img", make([]byte, rootAt+rootSize))
	tool(t, []byte("label: dos\nlabel-id: 0x4272616d\nstart=2048, size=16384, type=c\nstart=18432, type=83\n"), "sfdisk", "-q", "--no-reread", "--no-tell-kernel", disk)
	b, err := os.ReadFile(disk)
	check(t, err)
	for at, name := range map[int]string{bootAt: boot, rootAt: root} {
		part, err := os.ReadFile(name)
		check(t, err)
		copy(b[at:], part)
	}
	built.Store(key, b)
	return bytes.Clone(b)
}
