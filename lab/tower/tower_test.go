package tower

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"bramble/lab"
	"bramble/node"
)

// open makes a tower of the programs that make build has built.
func open(t testing.TB, machine string, patience time.Duration) (*Tower, context.Context) {
	t.Helper()
	lab.Need(t, "qemu-system-aarch64", "dnsmasq", "ssh", "ssh-keygen", "nsenter", "ip")
	build, err := filepath.Abs("../../build")
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"bramble", "pisim"} {
		if _, err := os.Stat(filepath.Join(build, program)); err != nil {
			t.Fatalf("%v: run make build first", err)
		}
	}
	tower, err := Open(Options{
		Bramble: filepath.Join(build, "bramble"), PiSim: filepath.Join(build, "pisim"), Image: lab.Image(t), Machine: machine, Log: t.Output(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tower.Close(); err != nil {
			t.Errorf("the tower does not close: %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	must(t, tower.Serve(ctx))
	return tower, ctx
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ask(ctx context.Context, t *testing.T, tower *Tower, board int, command, want string) {
	t.Helper()
	if got, err := tower.SSH(ctx, board, command); err != nil || got != want {
		t.Errorf("board %d: %s = %q, %v; want %q", board, command, got, err, want)
	}
}

// The owner's tower: four boards from ROM to login; the appliance is killed while they boot and while they run; one is
// power-cycled and comes back blank under the same name.
func TestTower(t *testing.T) {
	tower, ctx := open(t, "virt", 12*time.Minute)
	const boards = 4
	begin := time.Now().Add(-time.Second)
	for i := range boards {
		must(t, tower.PowerOn(i))
	}
	kill := func(when string, away time.Duration) {
		tower.Kill()
		time.Sleep(away)
		must(t, tower.Serve(ctx))
		t.Logf("killed with -9 and started again %s", when)
	}
	for n, _ := tower.Client().Node(ctx, tower.Serial(0).String()); n.Stage < node.StageRoot; n, _ = tower.Client().Node(ctx, tower.Serial(0).String()) {
		if ctx.Err() != nil {
			t.Fatalf("board 0 did not come to its root: stage %v, %s", n.Stage, n.Problem)
		}
		time.Sleep(200 * time.Millisecond)
	}
	kill("while they boot", 3*time.Second)

	var wg sync.WaitGroup
	for i := range boards {
		wg.Go(func() {
			d, err := tower.Ready(ctx, i, begin)
			if err != nil {
				t.Error(err)
				return
			}
			t.Logf("%s is ready %.1f s after its first DISCOVER", d.Name, d.ReadyTime.Sub(d.BootTime).Seconds())
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	machineID, err := tower.SSH(ctx, 1, "cat /etc/machine-id")
	must(t, err)
	for i := range boards {
		ask(ctx, t, tower, i, "hostname; findmnt -no FSTYPE /", tower.Name(i)+"\noverlay")
	}
	ask(ctx, t, tower, 1, "sudo touch /etc/marker && ls /etc/marker", "/etc/marker")

	kill("while they run", 10*time.Second)
	for i := range boards {
		ask(ctx, t, tower, i, "echo 3 | sudo tee /proc/sys/vm/drop_caches && find /usr/share -type f | head -n 300 | xargs cat | wc -c | grep -c [1-9]", "3\n1")
	}

	cycled := time.Now()
	must(t, tower.PowerOn(1))
	d, err := tower.Ready(ctx, 1, cycled.Add(-time.Second))
	must(t, err)
	if d.Boots != 2 || d.Name != tower.Name(1) {
		t.Errorf("after the power-cycle it is %s with %d boots; want %s with 2", d.Name, d.Boots, tower.Name(1))
	}
	ask(ctx, t, tower, 1, "hostname; cat /etc/machine-id; ls /etc/marker 2>/dev/null | wc -l", tower.Name(1)+"\n"+machineID+"\n0")
	memory, err := tower.Memory()
	must(t, err)
	t.Logf("the appliance has %s resident", node.Size(memory))
}

// One board on QEMU's BCM2837: slow, faithful, 1 GB, network over USB.
func TestRaspi3b(t *testing.T) {
	tower, ctx := open(t, "raspi3b", 14*time.Minute)
	begin := time.Now().Add(-time.Second)
	must(t, tower.PowerOn(0))
	d, err := tower.Ready(ctx, 0, begin)
	must(t, err)
	t.Logf("ready %.1f s after its first DISCOVER", d.ReadyTime.Sub(d.BootTime).Seconds())
	ask(ctx, t, tower, 0, "hostname; cat /proc/device-tree/model | tr -d '\\0' | cut -c 1-22", tower.Name(0)+"\nRaspberry Pi 3 Model B")
}
