# bramble. `make help` lists the targets.
SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

NODES    ?= 1
BOARD    ?= virt
FUZZTIME ?= 20s
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION)
STATIC   := CGO_ENABLED=0 go build -trimpath

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## install what tests and demo need (Debian packages; quiet when all is there)
	@lab/setup

build: build/bramble build/pisim ## build/bramble and build/pisim for this machine

# Stage 1 and the agent run on the nodes, so they are always arm64; bramble carries them inside.
build/stage1 build/firstboot: build/%: FORCE
	@mkdir -p build cmd/bramble/embed
	@GOOS=linux GOARCH=arm64 $(STATIC) -ldflags '-s -w' -o $@ ./cmd/$*
	@cmp -s $@ cmd/bramble/embed/$* || cp $@ cmd/bramble/embed/$*

build/bramble: build/stage1 build/firstboot FORCE
	@$(STATIC) -ldflags '$(LDFLAGS)' -o $@ ./cmd/bramble

build/pisim: FORCE
	@$(STATIC) -ldflags '-s -w' -o $@ ./cmd/pisim

build/bramble-arm64: build/stage1 build/firstboot
	@GOOS=linux GOARCH=arm64 $(STATIC) -ldflags '$(LDFLAGS)' -o $@ ./cmd/bramble

image: setup ## make (or reuse) the lab image: Debian arm64 laid out as Raspberry Pi OS
	@lab/image/build

demo: setup build ## power on NODES=1 virtual Pi 3B+ (BOARD=virt or raspi3b) and log in over SSH
	@go run ./cmd/demo -image "$$(lab/image/build)" -nodes $(NODES) -board $(BOARD)

test: setup build lint ## all tests: units with -race, fuzz targets, namespaces, whole boots in QEMU
	@.ci/test

lint: build/stage1 ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "gofmt would change these files; run gofmt -w on them" >&2; exit 1; }
	@go vet ./...
	@go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

fuzz: setup build/stage1 ## every fuzz target for FUZZTIME=20s each
	@.ci/fuzz $(FUZZTIME)

storm: setup build/stage1 ## 64 boards at once with loss, 20 seeds (not part of test yet: see docs/lab.md)
	@LAB=must go test -v -timeout 20m ./lab/storm

bench: setup build ## benchmarks against the peers, as a table with ratios
	@.ci/bench

deb: build/bramble build/bramble-arm64 ## Debian packages for this machine and for a master Pi
	@.ci/deb $(VERSION)

clean: ## remove what was built (the lab image stays in the cache)
	@rm -rf build cmd/bramble/embed/{stage1,firstboot}

FORCE:
.PHONY: help setup build image demo test lint fuzz storm bench deb clean FORCE
