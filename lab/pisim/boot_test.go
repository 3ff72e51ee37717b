package pisim

import (
	"context"
	"encoding/binary"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

const testSerial = 0x8b07bcc6

// bootIn boots a board in a house, in fake time.
func bootIn(t *testing.T, model string, house func(*house), board func(*Board)) (r Report, requests []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, house)
		b := Board{Model: mustModel(t, model), Serial: testSerial}
		if board != nil {
			board(&b)
		}
		r = b.Boot(t.Context(), &h.Segment)
		requests = h.requests()
		time.Sleep(time.Second) // the server's last transfers end
	})
	if t.Failed() || testing.Verbose() {
		printTimeline(t, r)
	}
	return r, requests
}

// The order of requests is that of the logs.
func TestGoldenRequests(t *testing.T) {
	for _, name := range []string{"3b+", "3b-sd", "4", "5"} {
		t.Run(name, func(t *testing.T) {
			r, requests := bootIn(t, name, func(h *house) {
				h.files["start4.elf"], h.files["fixup4.dat"], h.files["kernel_2712.img"] = "s4", "f4", "k5"
				h.files["bcm2711-rpi-4-b.dtb"], h.files["bcm2712-rpi-5-b.dtb"] = "d4", "d5"
			}, nil)
			if r.Outcome != Kernel {
				t.Errorf("outcome %q: %s", r.Outcome, r.Reason)
			}
			golden(t, "requests-"+name, strings.Join(requests, "\n")+"\n")
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: run the test with -update", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestBootReachesKernel(t *testing.T) {
	r, _ := bootIn(t, "3b+", nil, nil)
	if r.Outcome != Kernel || len(r.Warnings) > 0 {
		t.Fatalf("outcome %q, warnings %q: %s", r.Outcome, r.Warnings, r.Reason)
	}
	if r.Prefix != "8b07bcc6/" || r.Server != serverIP.String() || r.Address != "10.0.0.100" || r.MAC.String() != "b8:27:eb:07:bc:c6" {
		t.Errorf("prefix %s, server %s, address %s, MAC %s", r.Prefix, r.Server, r.Address, r.MAC)
	}
	files := bootFiles(50000)
	if string(r.Boot.Kernel) != files["kernel8.img"] || string(r.Boot.DTB) != files["bcm2710-rpi-3-b-plus.dtb"] ||
		string(r.Boot.Initramfs) != files["initramfs8"] || r.Boot.CmdlineTxt != files["cmdline.txt"] ||
		string(r.Boot.Overlays["overlays/vc4-kms-v3d.dtbo"]) != "vc4" {
		t.Errorf("the kernel would get %d, %d, %d bytes, %q and %d overlays", len(r.Boot.Kernel), len(r.Boot.DTB), len(r.Boot.Initramfs), r.Boot.CmdlineTxt, len(r.Boot.Overlays))
	}
	if !strings.HasSuffix(r.Boot.CommandLine, " console=ttyS0,115200 ip=dhcp") {
		t.Errorf("command line %q", r.Boot.CommandLine)
	}
}

// Known failures of real boards, and what the report says of them.
func TestBootFailures(t *testing.T) {
	for name, tc := range map[string]struct {
		model   string
		house   func(*house)
		board   func(*Board)
		outcome Outcome
		stage   string
		reason  string // part of the sentence
		least   time.Duration
		most    time.Duration
	}{
		"no router": {"3b+", func(h *house) { h.noRouter = true }, nil,
			NoOffer, "rom", "a proxy alone is not enough", 25 * time.Second, 25 * time.Second},
		"no text": {"3b+", func(h *house) { h.noMenu = true }, nil,
			NoServer, "rom", "no OFFER named a TFTP server", 25 * time.Second, 25 * time.Second},
		"nobody": {"3b+", func(h *house) { h.noMenu, h.noRouter = true, true }, nil,
			NoOffer, "rom", "neither an address nor", 25 * time.Second, 25 * time.Second},
		"option 66 of the router": {"3b+", func(h *house) { h.noMenu, h.router66 = true, "10.0.0.2\x00" }, nil,
			Kernel, "kernel", "", 0, 15 * time.Second},
		"option 66 leads astray": {"3b+", func(h *house) { h.noMenu, h.router66 = true, "10.0.0.77" }, nil,
			NoARP, "rom", "nobody answered ARP for 10.0.0.77", 5 * time.Second, 5 * time.Second},
		"no bootcode.bin": {"3b+", func(h *house) { h.files = without("bootcode.bin") }, nil,
			MissingFile, "rom", "bootcode.bin was not received (absent)", 0, time.Second},
		"no start.elf": {"3b+", func(h *house) { h.files = without("start.elf") }, nil,
			MissingFile, "bootcode", "its LED flashes 4 times", 0, time.Second},
		"no kernel": {"3b+", func(h *house) { h.files = without("kernel8.img") }, nil,
			MissingFile, "start", "its LED flashes 7 times", 0, time.Second},
		"no device tree": {"3b+", func(h *house) { h.files = without("bcm2710-rpi-3-b-plus.dtb", "bcm2710-rpi-3-b.dtb") }, nil,
			MissingFile, "start", "bcm2710-rpi-3-b-plus.dtb or bcm2710-rpi-3-b.dtb was not received", 0, time.Second},
		"recovery.elf": {"3b+", func(h *house) { h.files["recovery.elf"] = "noobs" }, nil,
			Elsewhere, "bootcode", "the firmware would start that", 0, time.Second},
		"options ignored": {"3b+", func(h *house) { h.noOACK = true }, nil,
			MissingFile, "start", "(no OACK)", 0, 30 * time.Second},
		"OACK twice": {"3b+", func(h *house) { h.twice = opOACK }, nil,
			Hung, "bootcode", "a duplicate packet broke the transfer", 0, time.Second},
		"DATA twice": {"3b+", func(h *house) { h.twice = opDATA }, nil,
			Hung, "start", "a duplicate packet broke the transfer", 0, time.Second},
		"DATA twice, RFC 1350": {"3b+", func(h *house) { h.twice = opDATA }, func(b *Board) { b.Model = b.Model.WithRFC1350() },
			Kernel, "kernel", "", 0, 5 * time.Second},
		"answers from elsewhere": {"3b+", func(h *house) { h.wrongHost = true }, nil,
			MissingFile, "rom", "bootcode.bin was not received (gave up)", time.Second, time.Second},
		"long config.txt": {"3b+", func(h *house) { h.files["config.txt"] = strings.Repeat("#234567\n", 512) + "arm_64bit=1\n" }, nil,
			MissingFile, "start", "kernel7.img", 0, time.Second},
		"3B answered last by the proxy": {"3b", func(h *house) { h.proxyDelay = second / 10 }, nil,
			NoServer, "rom", "no OFFER named a TFTP server", 25 * time.Second, 25 * time.Second},
		"3B with wake-up frames": {"3b", func(h *house) { h.wake, h.proxyDelay = true, time.Second }, nil,
			Kernel, "kernel", "", time.Second, 3 * time.Second},
		"3B answered too fast": {"3b", func(h *house) { h.wake, h.proxyDelay = true, second/10 }, func(b *Board) { b.Model.Stages[0].DHCP.TooFast = 2 * time.Second },
			NoOffer, "rom", "", 25 * time.Second, 25 * time.Second},
		"Pi 4 without router": {"4", func(h *house) { h.noRouter = true }, nil,
			NoOffer, "eeprom", "a proxy alone", 44 * time.Second, 44 * time.Second},
		"card with bootcode.bin": {"3b-sd", func(h *house) { h.noRouter = true }, nil,
			NoOffer, "bootcode", "after 15 DISCOVERs", 195 * time.Second, 195 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := bootIn(t, tc.model, tc.house, tc.board)
			if r.Outcome != tc.outcome || r.Stage != tc.stage || !strings.Contains(r.Reason, tc.reason) {
				t.Errorf("outcome %q in stage %s: %q; want %q in %s: ...%q", r.Outcome, r.Stage, r.Reason, tc.outcome, tc.stage, tc.reason)
			}
			if r.Took < tc.least || r.Took > tc.most {
				t.Errorf("it took %s; want %s to %s", r.Took, tc.least, tc.most)
			}
		})
	}
}

func TestBootGoesOnWithout(t *testing.T) {
	r, _ := bootIn(t, "3b+", func(h *house) { h.files = without("initramfs8", "overlays/vc4-kms-v3d.dtbo", "cmdline.txt") }, nil)
	if r.Outcome != Kernel || len(r.Warnings) != 3 {
		t.Errorf("outcome %q, warnings %q; want a kernel and three warnings", r.Outcome, r.Warnings)
	}
}

func TestPrefixIsDroppedForGood(t *testing.T) {
	_, requests := bootIn(t, "3b+", func(h *house) { h.files = without("start.elf") }, nil)
	for i, name := range requests {
		if i > 2 && strings.HasPrefix(name, "8b07bcc6/") {
			t.Errorf("request %d is %s although start.elf was missing there", i, name)
		}
	}
	if len(requests) < 5 || requests[2] != "8b07bcc6/start.elf" || requests[4] != "start.elf" {
		t.Errorf("requests %q", requests)
	}
}

func TestOSPrefix(t *testing.T) {
	use := func(h *house) {
		h.files["config.txt"] += "os_prefix=new/\n"
		h.files["8b07bcc6/new/kernel8.img"], h.files["8b07bcc6/new/bcm2710-rpi-3-b-plus.dtb"] = "newkernel", "newdtb"
		h.files["8b07bcc6/new/cmdline.txt"] = "new"
	}
	r, _ := bootIn(t, "3b+", use, nil)
	if string(r.Boot.Kernel) != "newkernel" || string(r.Boot.DTB) != "newdtb" || r.Boot.CmdlineTxt != "new" {
		t.Errorf("os_prefix was not used: kernel %.20q, cmdline %q", r.Boot.Kernel, r.Boot.CmdlineTxt)
	}
	if _, ok := r.Files["8b07bcc6/overlays/vc4-kms-v3d.dtbo"]; !ok {
		t.Error("os_prefix was used for overlays without a README among them")
	}
	r, _ = bootIn(t, "3b+", func(h *house) {
		use(h)
		h.files["8b07bcc6/new/overlays/README"], h.files["8b07bcc6/new/overlays/vc4-kms-v3d.dtbo"] = "r", "new overlay"
	}, nil)
	if got := string(r.Boot.Overlays["overlays/vc4-kms-v3d.dtbo"]); got != "new overlay" {
		t.Errorf("with a README below os_prefix the overlay is %q", got)
	}
	r, _ = bootIn(t, "3b+", func(h *house) { use(h); delete(h.files, "8b07bcc6/new/bcm2710-rpi-3-b-plus.dtb") }, nil)
	if r.Outcome != Kernel || len(r.Boot.Kernel) != 50000 {
		t.Errorf("os_prefix was used without a device tree below it: kernel %.20q", r.Boot.Kernel)
	}
}

func TestHandOver(t *testing.T) {
	got := ""
	r, _ := bootIn(t, "3b+", nil, func(b *Board) {
		b.HandOver = func(_ context.Context, r Report) error { got = r.Boot.CommandLine; return nil }
	})
	if r.Outcome != Kernel || !strings.Contains(got, "ip=dhcp") {
		t.Errorf("outcome %q, handed over %q", r.Outcome, got)
	}
	r, _ = bootIn(t, "3b+", nil, func(b *Board) {
		b.HandOver = func(context.Context, Report) error { return context.DeadlineExceeded }
	})
	if r.Outcome != NotHanded || r.Reason == "" {
		t.Errorf("outcome %q after a failed hand-over", r.Outcome)
	}
}

// A 3-series board takes any OFFER, also one for another board (§1.6).
func TestTakesTheOffersOfOthers(t *testing.T) {
	for _, checks := range []bool{false, true} {
		r, _ := bootIn(t, "3b+", func(h *house) {
			h.noMenu, h.noRouter = true, true
			h.later = func() {
				head := make([]byte, bootpLen)
				binary.BigEndian.PutUint32(head[4:], romXID)
				head[2], head[28] = 6, 0xb8 // for another board
				other := netip.MustParseAddr("10.0.0.4")
				h.server.SendTo(broadcast, serverPort, everybody, reply(append(head, cookie...), other, serverIP, "\x42\x0810.0.0.2"))
			}
		}, func(b *Board) {
			for _, s := range b.Model.Stages[:2] {
				s.DHCP.ChecksMAC = checks
			}
		})
		took := r.Stage == "bootcode" // it went on with the address of the other one
		if took == checks {
			t.Errorf("checks the address %v: outcome %q in stage %s", checks, r.Outcome, r.Stage)
		}
	}
}

// A 3B does not answer ARP while it transfers files; a 3B+ does.
func TestAnswersARP(t *testing.T) {
	for model, want := range map[string]bool{"3b": false, "3b+": true} {
		answers := 0
		bootIn(t, model, func(h *house) {
			h.wake, h.proxyDelay = true, second
			h.asker = func(mac MAC, ip netip.Addr) {
				asker := MAC{2, 0, 0, 0, 0, 9}
				port := h.plug(asker, nil, nil, func(b []byte) {
					if f, ok := parseFrame(b); ok && f.kind == etherARP && f.arp.op == arpReply && f.arp.senderIP == ip && f.arp.sender == mac {
						answers++
					}
				})
				port.Send(arpFrame(broadcast, arp{op: arpRequest, sender: asker, senderIP: serverIP, targetIP: ip}))
			}
		}, func(b *Board) {
			b.Model.Stages = b.Model.Stages[:1] // the ROM alone
		})
		if (answers > 0) != want {
			t.Errorf("a %s in its ROM answered ARP %d times; want answers: %v", model, answers, want)
		}
	}
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(h *house) { h.noRouter = true })
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		r := Board{Model: mustModel(t, "3b+"), Serial: 1}.Boot(ctx, &h.Segment)
		if r.Outcome != Cancelled || r.Took != 3*time.Second {
			t.Errorf("outcome %q after %s", r.Outcome, r.Took)
		}
	})
}
