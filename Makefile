# `make help` says what there is. Everything lives in .venv/ and var/; nothing is installed
# elsewhere but the programs that scripts/install_system.sh names, and those only for the tests.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# Empty: the newest of python3.11 and later that is found.
PYTHON ?=
# More for the program that is run: make test ARGS="-k webhook"
ARGS ?=
# Test processes side by side, each with servers of its own.
# More than two cores have: much of the tests' time is waiting.
WORKERS ?= 3

VENV := .venv
BIN := $(VENV)/bin
NODE_LOCK := $(wildcard tests/node/package-lock.json)
NODE_STAMP := $(if $(NODE_LOCK),tests/node/node_modules/.payonce-stamp)

.PHONY: help run test check format migrate states flask bench bench-gateways bench-locks clean system

help: ## Show this list
	@echo "Payonce. Usage: make TARGET [NAME=value]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/runtime.stamp ## Run the shop with sandbox gateways [PORT=8000 HOST=127.0.0.1 DATA_DIR=var]
	@exec $(BIN)/python scripts/run.py

test: system $(VENV)/dev.stamp $(NODE_STAMP) ## Install what is missing and run all tests [ARGS="-k name" WORKERS=3]
	@exec $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

check: $(VENV)/dev.stamp ## Lint, formatting and strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/dev.stamp ## Put imports and layout in order
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

migrate: $(VENV)/runtime.stamp ## Bring the database of `make run` (or DATABASE_URL) up to date
	@exec $(BIN)/python scripts/run.py flask db upgrade

states: $(VENV)/runtime.stamp ## Draw the state machines into docs/
	@exec $(BIN)/python scripts/run.py flask states

flask: $(VENV)/runtime.stamp ## A command of the shop, beside `make run` [ARGS="locks show"]
	@exec $(BIN)/python scripts/run.py flask $(ARGS)

bench: system $(VENV)/dev.stamp ## Measure a payment against the hand-written floor
	@exec $(BIN)/python -m benchmarks

bench-gateways: system $(VENV)/dev.stamp ## Measure what a gateway that hangs costs everybody else
	@exec $(BIN)/python -m benchmarks.gateways

bench-locks: system $(VENV)/dev.stamp ## Measure our locks beside the known ones, ten minutes [ARGS="--quick --only crowd"]
	@exec $(BIN)/python -m benchmarks.locks $(ARGS)

clean: ## Remove the environment and all caches; your data in var/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis tests/node/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

system:
	@scripts/install_system.sh tests

# An environment that was broken off while being made, or whose Python is gone or old, is made anew.
COMPLETE := import sys, pip; sys.exit(sys.version_info < (3, 11))

# The stamps make the environment follow the requirements, and nothing else rebuild it.
$(VENV)/runtime.stamp: requirements.txt
	@echo "Installing the Python packages of requirements.txt into $(VENV)/ (once; it may take a minute)."
	@python=$$(scripts/find_python.sh "$(PYTHON)") && \
		if ! $(BIN)/python -c '$(COMPLETE)' 2>/dev/null; then "$$python" -m venv --clear $(VENV); fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt $(VENV)/runtime.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

tests/node/node_modules/.payonce-stamp: tests/node/package-lock.json tests/node/package.json
	cd tests/node && npm ci --no-audit --no-fund --loglevel=error
	@touch $@
