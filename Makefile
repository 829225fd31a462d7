# What a contributor and CI run; docs/development.md tells more.
# `make test` needs Go and make alone. Other targets install what they miss.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null)
FUZZTIME ?= 20s

TOOLS  := internal/tools
TOOL   := $(GO) tool -modfile=$(CURDIR)/$(TOOLS)/go.mod
BUF    := $(TOOLS)/node_modules/.bin/buf
LDFLAGS = -s -w -X main.version=$(VERSION)

# The platforms that the binary is built for. One after the other is faster
# than side by side on two cores: each build uses both already.
PLATFORMS := $(foreach os,linux darwin windows freebsd,$(foreach arch,amd64 arm64,$(os)/$(arch)))

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: ## bin/gridloom, static
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/gridloom ./cmd/gridloom

.PHONY: test
test: ## every test that needs Go alone, with the race detector where a C compiler is
	@GO='$(GO)' $(TOOLS)/test.sh unit

.PHONY: test-real
test-real: ## tests against other programs, which it installs
	@GO='$(GO)' $(TOOLS)/test.sh real

.PHONY: soak
soak: ## the longer runs, and every fuzz target for a minute
	@GO='$(GO)' $(TOOLS)/test.sh soak

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME
	@GO='$(GO)' FUZZTIME='$(FUZZTIME)' $(TOOLS)/test.sh fuzz

.PHONY: bench-grid
bench-grid: ## the grid beside other stacks, about 10 minutes; flags in BENCHFLAGS
	cd grid/bench && CGO_ENABLED=0 $(GO) run . $(BENCHFLAGS)

.PHONY: bench-control
bench-control: ## the index beside etcd, about 3 minutes; flags in BENCHFLAGS
	cd node/control/bench && CGO_ENABLED=0 $(GO) run . $(BENCHFLAGS)

.PHONY: bench-store
bench-store: ## puts and heal beside the bare recipe, about 3 minutes; flags in BENCHFLAGS
	cd node/object/bench && CGO_ENABLED=0 $(GO) run . $(BENCHFLAGS)

.PHONY: bench-bytes
bench-bytes: ## the bytes of files beside nginx, bare files and bare grpc-go, about 15 minutes; flags in BENCHFLAGS (-congestion cubic: with another congestion control)
	@PATH="$$PATH:/usr/sbin" $(TOOLS)/install.sh nginx || echo 'without nginx there are no ratios to it'
	cd node/door/bench && CGO_ENABLED=0 $(GO) run . $(BENCHFLAGS)

# CGO_ENABLED=0 wherever it does not matter, so that all of it shares compiled
# packages with cross.
.PHONY: lint
lint: fmt-check vet staticcheck buf-lint ## all the static checks

.PHONY: fmt-check
fmt-check:
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "not formatted by gofmt:"; echo "$$out"; exit 1; fi

.PHONY: vet
vet:
	CGO_ENABLED=0 $(GO) vet ./...
	CGO_ENABLED=0 $(GO) vet -tags real,soak ./...
	cd grid/bench && CGO_ENABLED=0 $(GO) vet ./...
	cd node/control/bench && CGO_ENABLED=0 $(GO) vet ./...
	cd node/object/bench && CGO_ENABLED=0 $(GO) vet ./...
	cd node/door/bench && CGO_ENABLED=0 $(GO) vet ./...
	cd observability/otelcol && CGO_ENABLED=0 $(GO) vet -tags real ./...

.PHONY: staticcheck
staticcheck:
	CGO_ENABLED=0 $(TOOL) staticcheck -tags real,soak ./...
	cd grid/bench && CGO_ENABLED=0 $(TOOL) staticcheck ./...
	cd node/control/bench && CGO_ENABLED=0 $(TOOL) staticcheck ./...
	cd node/object/bench && CGO_ENABLED=0 $(TOOL) staticcheck ./...
	cd node/door/bench && CGO_ENABLED=0 $(TOOL) staticcheck ./...
	cd observability/otelcol && CGO_ENABLED=0 $(TOOL) staticcheck -tags real ./...

.PHONY: buf-lint
buf-lint: $(BUF)
	$(BUF) lint

.PHONY: buf-breaking
buf-breaking: $(BUF) ## the API against the last release, or against BASE=<git ref>
	@BUF='$(BUF)' BASE='$(BASE)' $(TOOLS)/breaking.sh

.PHONY: generate
generate: $(BUF) ## everything that is generated: gen/, *_gen.go, documents
	CGO_ENABLED=0 $(BUF) generate --template proto/buf.gen.yaml
	CGO_ENABLED=0 $(GO) generate ./...

.PHONY: check-generate
check-generate: $(BUF) ## fails when generate would change, add or leave behind a file
	@MAKE='$(MAKE)' BUF='$(BUF)' $(TOOLS)/check-generate.sh

.PHONY: cross
cross: $(addprefix cross/,$(PLATFORMS)) cross/solaris cross/illumos ## the binary for every platform, not kept, and dataio's tests

.PHONY: $(addprefix cross/,$(PLATFORMS))
$(addprefix cross/,$(PLATFORMS)): cross/%:
	CGO_ENABLED=0 GOOS=$(*D) GOARCH=$(*F) $(GO) build -buildvcs=false -o /dev/null ./cmd/gridloom
	CGO_ENABLED=0 GOOS=$(*D) GOARCH=$(*F) $(GO) vet ./dataio

# Not the binary: Pebble is not for them (docs/decisions/0008-the-byte-path.md).
.PHONY: cross/solaris cross/illumos
cross/solaris cross/illumos: cross/%:
	CGO_ENABLED=0 GOOS=$* GOARCH=amd64 $(GO) build ./grid
	CGO_ENABLED=0 GOOS=$* GOARCH=amd64 $(GO) vet ./dataio

.PHONY: clean
clean: ## remove what build and the tools left
	rm -rf bin $(TOOLS)/node_modules

# buf's release is an npm package with the binary inside, pinned by the lock.
$(BUF): $(TOOLS)/package.json $(TOOLS)/package-lock.json
	$(TOOLS)/install.sh npm
	cd $(TOOLS) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@
