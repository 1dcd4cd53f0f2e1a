# One entry point for people and for CI. `make help` lists the targets.
#
# The environment lives in .venv and is built from requirements/*.txt: pinned and hashed, no download
# addresses, so that any index or mirror that pip is set up for will serve it.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install -qq
LOCK   := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
          --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
CODE   := raftreg agent cli bench jepsen_like tests

ARGS  ?=
SEEDS ?= 1000
SEED  ?=
JOBS  ?= 2
SECONDS_EACH ?= 60
EXAMPLES ?= 200

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env demo test check fmt bench fuzz sim jepsen jepsen-full jepsen-prove lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Three steps: what builds packages, what runs raftreg, what tests it. The build tools come first so
# that the engine (published as source only) is built without fetching anything unpinned.
$(BIN)/python:
	@echo "==> creating $(VENV) with $(PYTHON)"
	@test -n "$(PYTHON)" || { echo "no python3 found; raftreg needs Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); raftreg needs 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.build: requirements/build.txt | $(BIN)/python
	@echo "==> installing the build tools"
	@$(PIP) --require-hashes -r requirements/build.txt
	@touch $@

$(VENV)/.run: requirements/run.txt $(VENV)/.build pyproject.toml
	@echo "==> installing what raftreg runs on"
	@$(PIP) --require-hashes --no-build-isolation -r requirements/run.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@echo "==> installing what tests and checks it"
	@$(PIP) --require-hashes --no-build-isolation -r requirements/dev.txt
	@touch $@

env: $(VENV)/.dev ## build .venv from the pinned, hashed requirements
	@echo "==> $(VENV) is ready: $$($(BIN)/python -V)"

demo: $(VENV)/.run ## three servers, three agents, sample services (ARGS=--once: check and exit)
	@$(BIN)/raftreg demo $(ARGS)

test: $(VENV)/.dev ## the whole test suite (ARGS= goes to pytest, JOBS= processes)
	@echo "==> running the tests in $(JOBS) processes"
	@$(BIN)/python -m pytest -q -n $(JOBS) $(ARGS)

check: $(VENV)/.dev ## format, lint, types, import rules
	@echo "==> ruff format" && $(BIN)/ruff format --check $(CODE)
	@echo "==> ruff check" && $(BIN)/ruff check $(CODE)
	@echo "==> mypy" && $(BIN)/mypy
	@echo "==> import rules" && $(BIN)/lint-imports --no-logo

fmt: $(VENV)/.dev ## format, and fix what can be fixed
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix $(CODE)

bench: $(VENV)/.run ## the benchmarks (ARGS=--help lists them)
	@$(BIN)/python -m bench $(ARGS)

fuzz: $(VENV)/.dev ## bytes thrown at every decoder, requests at the API (ARGS="--target dns_query")
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS_EACH) $(ARGS)
	@RAFTREG_FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest -q -n $(JOBS) tests/openapi

sim: $(VENV)/.dev ## simulated clusters under faults (SEEDS= how many, SEED= replays one)
	@$(BIN)/python -m tests.sim $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(ARGS)

jepsen: $(VENV)/.dev ## real clusters under real faults: each workload, each nemesis; minutes
	@$(BIN)/python -m jepsen_like matrix --short $(if $(SEED),--seed $(SEED)) $(ARGS)

jepsen-full: $(VENV)/.dev ## every workload under every nemesis; hours (ARGS="--out DIR --resume")
	@$(BIN)/python -m jepsen_like matrix --full $(if $(SEED),--seed $(SEED)) $(ARGS)

jepsen-prove: $(VENV)/.dev ## switch known bugs on, and show that each is caught
	@$(BIN)/python -m jepsen_like prove $(ARGS)

lock: $(VENV)/.dev ## compile requirements/*.txt anew from pyproject.toml (ARGS=--upgrade: newest)
	@echo "==> compiling requirements/"
	@$(LOCK) $(ARGS) --group build -o requirements/build.txt
	@$(LOCK) $(ARGS) pyproject.toml --all-extras -c requirements/build.txt -o requirements/run.txt
	@$(LOCK) $(ARGS) pyproject.toml --all-extras --group dev -c requirements/build.txt \
	  -c requirements/run.txt -o requirements/dev.txt

clean: ## remove the environment, caches and built files
	@rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	@find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
