# What each target does stands in README.md and CONTRIBUTING.md.
VERSION := $(shell packaging/version)
LDFLAGS := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 30s
SOAKTIME ?= 30m
PREFIX ?= /usr
export GOFLAGS := $(shell . packaging/common.sh && echo "$$GOFLAGS")
export CGO_ENABLED = 0

.PHONY: build run check test bench soak next-go lint fuzz packages install shell generate clean

build:
	go build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

run:
	@packaging/run

check:
	packaging/check

test:
	packaging/test

# BENCH has options of packaging/bench, such as BENCH='--only http --rounds 9'.
bench: packages
	packaging/bench/run $(BENCH)

# Kills, power cuts, storms and escapes at their full count, and all floods at once for SOAKTIME.
soak: packages
	packaging/soak $(SOAKTIME)

# With the newest Go, its release candidates included.
next-go:
	packaging/next-go

lint:
	packaging/lint

fuzz:
	packaging/fuzz $(FUZZTIME)

packages: build
	packaging/build-packages

install: build
	packaging/install "$(DESTDIR)" "$(PREFIX)"

# A root shell in a throwaway Debian with systemd as PID 1 and this tree's package installed.
shell: packages
	packaging/testbed/testbed setup container
	packaging/testbed/testbed shell --deb "$$(ls -t dist/rtask_*_amd64.deb | head -n 1)"

# The generated code; needs protoc (Debian: protobuf-compiler, libprotobuf-dev) and systemd.
generate:
	packaging/generate

clean:
	rm -rf bin dist
