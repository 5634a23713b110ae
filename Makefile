# Every target does its own set-up: on a fresh Debian 12 machine only `make` and `git` are needed.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
DONE := $(VENV)/.complete

.PHONY: help setup demo prove test test-fast test-all lint chaos molecule bench lock clean

help: ## Show what can be done
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# The environment, from locked versions with their hashes. Rebuilt when the lock or the metadata changes.
$(DONE): requirements/dev.txt pyproject.toml
	@echo "Setting up Python in $(VENV) (about a minute, once)"
	@python3 -c 'import ensurepip, venv' 2>/dev/null || { apt-get update -q && apt-get install -y -q python3-venv; }
	@test -x $(PY) || python3 -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(DONE) ## Make the environment .venv with the commands rtinfra and pyinfra; the targets below do so by themselves
	@echo "Ready. In each terminal, once: . $(VENV)/bin/activate"

demo: $(DONE) ## Build a lab machine, deploy to it, prove it, say what to do next
	@$(VENV)/bin/rtinfra demo

prove: $(DONE) ## All of that with a cloud image of your own: make prove IMAGE=FILE; the row for docs/proof.md goes to reports
	@test -n "$(IMAGE)" || { echo "name the image: make prove IMAGE=FILE" >&2; exit 2; }
	@$(VENV)/bin/rtinfra prove --image "$(IMAGE)"

test: $(DONE) ## Everything: lint, types, unit, golden, integration, native telemetry, scenarios on lab machines (about 70 minutes without KVM)
	@tests/run all

test-fast: $(DONE) ## Everything that needs no machine, under a minute
	@tests/run fast

test-all: $(DONE) ## `make test` with its heavy scenarios (long outages, every failed boot), then molecule and the benchmarks
	@tests/run heavy
	@$(MAKE) --no-print-directory molecule bench

lint: $(DONE) ## Lint, format, imports, types, shell scripts, security
	@tests/run lint

chaos: $(DONE) ## Power cuts at all 20 moments of a deploy; `make test` takes 3 (about 70 minutes without KVM)
	@tests/run chaos --instants 20

molecule: $(DONE) ## The same deploy and the same compliance tests, driven by molecule
	@tests/run molecule

bench: $(DONE) ## Preflight, a plan of 50 hosts, fetching against curl, an unchanged host against Ansible, a first deploy against a script
	@$(PY) -m benchmarks.preflight
	@$(PY) -m benchmarks.plan
	@$(PY) -m benchmarks.mirror --inventory inventory/hosts.example.yaml
	@$(PY) -m benchmarks.noop
	@$(PY) -m benchmarks.provision
	@$(PY) -m benchmarks.verify

COMPILE = $(VENV)/bin/pip-compile --quiet $(UPGRADE) --generate-hashes --allow-unsafe --no-strip-extras --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host

# UPGRADE= keeps all versions that still fit.
lock: UPGRADE ?= --upgrade
lock: $(DONE) ## Renew requirements/*.txt; versions and hashes only, no index
	@$(COMPILE) -o requirements/runtime.txt pyproject.toml
	@$(COMPILE) -c requirements/runtime.txt --extra dev -o requirements/dev.txt pyproject.toml
	@$(COMPILE) -o requirements/preflight.txt requirements/preflight.in

clean: ## Remove the environment, reports and lab machines (the cached base image stays)
	@test ! -x $(VENV)/bin/rtinfra || $(VENV)/bin/rtinfra lab down --all
	@rm -rf $(VENV) .lab reports
