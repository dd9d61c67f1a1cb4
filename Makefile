# Tidegate: the few commands that a developer needs. `make help` lists them.

CARGO ?= cargo
BENCH_FLAGS ?=
FUZZ_SECONDS ?= 30

# A command that fails in a pipe fails the target.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help test test-tools lint docs bench bench-guards bench-gateway bench-overload bench-fleet fuzz

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: test-tools ## Install what the tests need, then run every test and every example in the docs
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		set -x; $(CARGO) nextest run --workspace --all-targets && $(CARGO) test --workspace --doc; \
	else \
		set -x; $(CARGO) test --workspace --all-targets && $(CARGO) test --workspace --doc; \
	fi

test-tools: ## Install the servers and load tools that the tests start (Debian packages, one from npm)
	@scripts/install-test-tools
	@scripts/install-test-provider

lint: ## Check the format and every lint, warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

docs: ## Build the API documentation, warnings as errors
	RUSTDOCFLAGS="-Dwarnings" $(CARGO) doc --workspace --no-deps

bench: bench-guards bench-gateway bench-overload bench-fleet ## Run every benchmark and write docs/benchmarks.md (about 25 minutes)

bench-guards: ## The cost of each guard beside its peers
	$(CARGO) run --release -p tidegate-benches -- --markdown | scripts/bench-section guards

bench-gateway: test-tools ## The gateway beside nginx, HAProxy and Envoy; BENCH_FLAGS=--quick for a glance
	scripts/bench-gateway $(BENCH_FLAGS)

bench-overload: test-tools ## Goodput under overload beside nginx, tower and no limiter (4 minutes); BENCH_FLAGS=--quick for a glance
	scripts/bench-overload $(BENCH_FLAGS)

bench-fleet: test-tools ## Gateways that share a store, and its throttle beside trypema, limitador and governor (4 minutes); BENCH_FLAGS=--quick for a glance
	scripts/bench-fleet $(BENCH_FLAGS)

fuzz: ## Fuzz each target for FUZZ_SECONDS (30) seconds, or replay its seeds without cargo-fuzz and a nightly toolchain
	scripts/fuzz $(FUZZ_SECONDS)
