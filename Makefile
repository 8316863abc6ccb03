# The commands of the project. `make` alone lists them.
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help demo test lint show

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:/ { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## send a handful of mails on loopback and watch them (needs Rust and a C compiler)
	@cargo run --quiet --package posthaste -- demo

test: ## format, lints and all tests, with real peers; installs what it needs
	@scripts/test

lint: ## format and lints alone
	@cargo fmt --all --check
	@cargo clippy --quiet --workspace --all-targets -- -D warnings

show: ## print one named figure or proof: make show CASE=name; without CASE the list
	@cargo build --quiet --release --package posthaste --package posthaste-show
	@target/release/posthaste-show $(or $(CASE),list)
