# raftvip: everything that a developer runs. "make test" sets up what it needs.

GO          ?= go
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 5s

# Debian packages that the namespace tests and the model use.
PACKAGES := keepalived iproute2 nftables tcpdump iputils-arping procps util-linux frr spin gcc libc6-dev

.PHONY: build setup check test unit netns fuzz model sim demo chaos bench clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/raftvip ./cmd/raftvip

# setup installs missing Debian packages; it does nothing where all are there.
setup:
	@missing=""; for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q "ok installed" || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
		echo "installing$$missing"; \
		[ "$$(id -u)" = 0 ] || { echo "error: must be root to install packages" >&2; exit 1; }; \
		apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing >/dev/null; \
	fi

# check is everything that needs no test run: format, vet, staticcheck, modules.
check:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) mod tidy -diff
	$(GO) mod verify

# test runs everything: unit tests with the race detector, then the tests that use
# network namespaces, which need root.
test: setup unit netns

unit:
	$(GO) test -race -timeout 15m ./...

# Privileged tests are never skipped here: RAFTVIP_NETNS makes a skip a failure.
# One package at a time, as they measure and share two cores with the kernel.
netns:
	@[ "$$(id -u)" = 0 ] || { echo "error: the namespace tests must run as root" >&2; exit 1; }
	RAFTVIP_NETNS=1 $(GO) test -count=1 -p 1 -timeout 20m ./vip/... ./vrrpcompat/... ./internal/testnet/... ./internal/check/... ./internal/doctor/... ./internal/e2e/... ./internal/chaos/... ./internal/bench/...

fuzz:
	@for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$pkg || exit 1; \
		done; \
	done

# model checks the lease rules with spin.
model: setup
	docs/model/check.sh

# sim runs 10 000 faults against real Raft in virtual time.
sim:
	RAFTVIP_SIM_FAULTS=$${RAFTVIP_SIM_FAULTS:-10000} $(GO) test -count=1 -v -run 'TestSimulation' -timeout 30m ./cluster/group

# demo shows the main job in namespaces; KEEP=1 leaves the cluster up.
demo: setup
	KEEP=$(KEEP) $(GO) run ./internal/demo

# chaos runs the fault matrix against raftvip with each guard and against keepalived;
# ARGS are its flags, such as "-guards nft -trials 3".
chaos: setup
	$(GO) run ./internal/chaos $(ARGS)

# bench measures beside keepalived in the same run and writes docs/bench/DATE-COMMIT.md
# and .json; ARGS are its flags, such as -quick. See docs/bench/README.md.
bench: setup
	$(GO) run ./internal/bench $(ARGS)

clean:
	rm -rf bin
