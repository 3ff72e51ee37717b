// Stage1 is /init of a node's initramfs. Under the name @bramble-keeper it keeps the root's connection, and with the
// argument "ready" it tells the appliance that one can log in.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"bramble/firstboot/stage1"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bramble:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx := context.Background()
	switch {
	case strings.HasPrefix(os.Args[0], "@"):
		return stage1.Keep()
	case len(os.Args) > 1 && os.Args[1] == "ready":
		ctx, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		return stage1.Ready(ctx)
	case os.Getpid() == 1:
		stage1.Run(ctx)
	}
	return fmt.Errorf("this is the /init of an initramfs; it runs as process 1 of a node")
}
