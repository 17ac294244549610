# `make help` lists the targets. Builds are cached outside the clone, so that a fresh clone finds them again.

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/quern
export CARGO_TARGET_DIR ?= $(CACHE)/cargo
# Release builds are for images, which run on other processors too.
export RUSTFLAGS ?= $(if $(filter fast,$(PROFILE)),$(shell .ci/rustflags))
# `fast` builds in half of release's time and runs at nine tenths of its speed; `make build PROFILE=release` for images.
PROFILE ?= fast
CARGO := cd rust-engine && cargo
# How many inputs each Go fuzz target gets in `make test`; `make fuzz FUZZTIME=10m` goes on for a time.
FUZZTIME ?= 10000x
SCALE ?= 0.01

.DEFAULT_GOAL := help
.PHONY: help run build build-edge build-engine test test-rust test-go test-e2e soak image-binaries test-containers test-chart test-k8s test-differential fuzz bench lint fmt gen clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## Build what is missing, make sample data and serve it on 127.0.0.1:8080
	@.ci/serve-sample $(SCALE)

build: build-engine build-edge ## Build bin/quern, bin/quern-engine and bin/quern-sample

build-edge:
	@.ci/need go
	@mkdir -p bin
	go build -trimpath -o bin/quern ./go-api/cmd/quern

build-engine:
	@.ci/need cargo cc
	@mkdir -p bin
	$(CARGO) build --locked --profile $(PROFILE) --bins
	@.ci/install $(CARGO_TARGET_DIR)/$(PROFILE) quern-engine quern-sample

test: test-rust test-go test-chart test-e2e test-differential fuzz ## Build what is missing and run the tests

test-rust: ## Unit and property tests of the engine
	@.ci/need cargo cc
	$(CARGO) test --locked --profile $(PROFILE) --workspace --lib --bins --tests

test-go: ## Unit tests of the edge, with the race detector
	@.ci/need go cc
	go test -race $$(go list ./... | grep -v /go-api/test/)

test-e2e: build ## Scenarios, the README's tour, faults and hostile queries against the real binaries
	@.ci/need go cc
	go test -race -count=1 -timeout 20m ./go-api/test/e2e/...

soak: build ## Check 200,000 answers for staleness while everything goes wrong; kill the engine and ask for all memory for minutes
	@.ci/need go cc
	QUERN_SOAK_ANSWERS=200000 go test -count=1 -v -timeout 4h -run 'TestNeverStale' ./go-api/test/e2e/
	QUERN_SOAK_KILLS=5m QUERN_HOSTILE_FOR=10m go test -count=1 -v -timeout 1h -run 'TestEngineKilledUnderLoad|TestHostileClients' ./go-api/test/e2e/

image-binaries: build-engine ## Fill bin/image: stripped binaries and bills of materials for images that compile nothing
	@.ci/need go cargo cc
	.ci/image-binaries

test-containers: image-binaries ## Build the images, bring docker-compose.yml up and test it; needs Docker, or root on Debian
	@.ci/need go python3
	QUERN_TEST_CONTAINERS=$(or $(QUERN_TEST_CONTAINERS),1) go test -count=1 -v -timeout 40m ./go-api/test/containers/

test-chart: build-edge ## Render the Helm chart with every switch, and check it against the types of Kubernetes; no cluster
	@.ci/need go
	go test -count=1 -timeout 10m ./go-api/test/chart/

test-k8s: image-binaries ## Install the chart in a Kubernetes built for it, roll, kill and drain; needs root on Linux
	@.ci/need go python3
	QUERN_TEST_KUBERNETES=$(or $(QUERN_TEST_KUBERNETES),1) go test -count=1 -v -timeout 60m -run '^TestKubernetes$$' ./go-api/test/containers/

test-differential: build ## Every vega-datasets table and TPC-H query against DuckDB
	@.ci/need go npm python3
	go test -count=1 -timeout 30m ./go-api/test/differential/...

fuzz: ## Run each Go fuzz target on FUZZTIME inputs (10000x)
	@.ci/need go
	@.ci/fuzz-go $(FUZZTIME)

bench: build ## Measure against the bounds that are promised and beside the peers; results under bench/results
	@.ci/need go python3
	@.ci/bench

lint: ## Check formats, lints, licences and the protos
	@.ci/need cargo go cc python3
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --profile $(PROFILE) --workspace --all-targets -- -D warnings
	.ci/licenses
	.ci/lint-go
	.ci/lint-proto

fmt: ## Format Rust and Go
	$(CARGO) fmt --all
	.ci/lint-go fmt

gen: build ## Regenerate the Go code of the protos and the reference pages
	@.ci/need go
	.ci/gen

clean: ## Remove what was built in the clone and the shared build cache's binaries
	rm -rf bin sample
	$(CARGO) clean --profile $(PROFILE) -p quern-core -p quern-sources -p quern-query -p quern-grpc -p quern-server -p quern-sample
