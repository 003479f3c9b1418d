# `make help` says what there is. Every target sets up what it needs by itself:
# Debian packages (tools/setup/packages.txt), a Go toolchain, a kernel for the
# tests' VMs. On a machine that has them all, no target touches the network.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
MAKEFLAGS += --no-print-directory

WITH := tools/setup/with
COMMANDS := ./cmd/hostagent ./cmd/controlleragent ./cmd/serialdbg
BIN := build/bin
LIBEXEC := build/libexec/winvm

# Images are made from these files and are named by their digests, so the bytes
# must not depend on the machine, the checkout's path, or the caller's settings.
GO_BUILD := env CGO_ENABLED=0 GOOS=linux GOARCH=amd64 GOAMD64=v1 GOEXPERIMENT= GOFLAGS=-buildvcs=false \
	go build -trimpath -buildvcs=false -ldflags '-s -w'
MINGW_CC := x86_64-w64-mingw32-gcc
MINGW_FLAGS := -Os -Wall -Wextra -Werror -nostdlib -ffreestanding -fno-builtin -s -ffile-prefix-map=$(CURDIR)=. \
	-Wl,-e,start,--major-subsystem-version=5,--minor-subsystem-version=2,--no-insert-timestamp

# What `make demo` and the tests with VMs use.
export IMAGE ?= wine
export WINVM_CACHE_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/winvm

FUZZTIME ?= 30s
SOAKTIME ?= 1h
SEED ?= 0
REVIVES ?= 1000
SUSPENDS ?= 200
BENCH ?= .
COUNT ?= 5

.PHONY: all build man lint test bench bench-wake microbench soak soak-share demo clean setup fmt fuzz cover help

all: build lint test ## build, lint and test

setup: ## install what is missing: Debian packages, Go, a kernel for tests
	@tools/setup/packages.sh
	@tools/setup/go.sh >/dev/null
	@tools/setup/kernel.sh >/dev/null

# Nothing of the machine goes into it either: no timestamp, no path.
$(LIBEXEC)/winvm-run.exe: hostagent/guest/windows/run.c Makefile | setup
	@mkdir -p $(@D)
	@$(MINGW_CC) $(MINGW_FLAGS) -o $@ $< -lkernel32

build: setup $(LIBEXEC)/winvm-run.exe ## build the commands and the files that images are made of
	@mkdir -p $(BIN) $(LIBEXEC)
	@$(WITH) $(GO_BUILD) -o $(BIN)/ $(COMMANDS)
	@install -m 0755 $(BIN)/controlleragent $(LIBEXEC)/controlleragent

man: build ## make the manual pages, in build/share/man
	@mkdir -p build/share/man/man1
	@for c in hostagent serialdbg; do $(BIN)/$$c man >build/share/man/man1/$$c.1; done

lint: setup ## run every linter
	@$(WITH) tools/setup/lint.sh

test: build ## run every test; CI=true makes a missing need a failure
	@WINVM_TEST_KERNEL="$$(tools/setup/kernel.sh)" WINVM_TEST_FULL_KERNEL="$$(tools/setup/kernel.sh amd64)" \
		$(WITH) tools/setup/test.sh $(PACKAGES)

bench: build ## measure side by side with what else could be mounted (BENCH=WORKLOAD/SIDE COUNT=n QUICK=1)
	@tools/setup/packages.sh sshfs dpkg-dev bzip2 patch
	@tcc=$$($(WITH) tools/demo/toolchain.sh build/bench TCC) && \
		WINVM_BENCH_KERNEL="$$(tools/setup/kernel.sh amd64)" $(WITH) \
		go run ./bench -bench '$(BENCH)' -samples $(COUNT) -tcc "build/bench/$${tcc#TCC=}" $(if $(QUICK),-quick)

bench-wake: build ## measure a build's way to its command beside the 2014 way and a cold boot (IMAGE=name COUNT=n)
	@$(WITH) $(BIN)/hostagent image create $(IMAGE)
	@$(WITH) go run ./bench/wake -image $(IMAGE) -rounds $(COUNT) -state-dir "$${WINVM_STATE_DIR:-$${XDG_STATE_HOME:-$$HOME/.local/state}/winvm}"

microbench: build ## run the packages' benchmarks (BENCH=regexp COUNT=n) and summarise them
	@WINVM_TEST_KERNEL="$$(tools/setup/kernel.sh)" $(WITH) tools/setup/bench.sh '$(BENCH)' $(COUNT)

soak: build ## revive REVIVES times, kill SUSPENDS suspends; figures into build/soak
	@$(WITH) tools/setup/soak.sh $(REVIVES) $(SUSPENDS)

demo: build ## make the images, run a real Windows build in them, twice
	@tools/setup/packages.sh dpkg-dev bzip2 patch openssl $$(command -v npm >/dev/null || echo npm)
	@$(WITH) $(BIN)/hostagent image create $(IMAGE)
	@$(WITH) tools/demo/run.sh

fuzz: setup ## run every fuzz target for FUZZTIME
	@$(WITH) tools/setup/fuzz.sh $(FUZZTIME)

soak-share: setup ## random operations on mounts, with cuts, for SOAKTIME (SEED=n)
	@$(WITH) go test ./controlleragent/soak -v -count 1 -timeout 0 -soak.for $(SOAKTIME) -soak.seed $(SEED)

cover: build ## measure the tests' coverage, into build/cover.html
	@WINVM_TEST_KERNEL="$$(tools/setup/kernel.sh)" $(WITH) \
		go test -timeout 40m -p 1 -coverpkg=./... -coverprofile=build/cover.out ./...
	@$(WITH) go tool cover -html=build/cover.out -o build/cover.html
	@$(WITH) go tool cover -func=build/cover.out | tail -n 1

fmt: setup ## format the Go files
	@$(WITH) go tool -modfile=tools/go.mod golangci-lint fmt

clean: ## remove what was built; the caches outside the checkout stay
	rm -rf build

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
