# One command for each thing a developer or newcomer does. Needs Python 3.11 or newer and make, nothing else:
# `make demo` and `make test` build the environment in .venv from the locked requirements first.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := requirements/dev.txt
DIRECTORY ?=

# A terminal, a home directory or somebody's own pip settings are not relied on.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_USER := 0
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH PYTHONHOME

.PHONY: help install demo test test-all lint format types imports build light-install bench lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 16

install: $(STAMP)  ## the environment in .venv

# Runs again only when the lock or pyproject.toml changed (or an earlier run broke off).
$(STAMP): $(LOCK) pyproject.toml
	@set -eu; \
	python=""; \
	for candidate in $${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Edgewater needs Python 3.11 or newer, found none; on Debian or Ubuntu: apt-get install python3 python3-venv," >&2; \
	  echo "or name one: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
	  package=$$("$$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	  echo "The part of Python that makes environments (venv with ensurepip) is missing; on Debian or Ubuntu:" >&2; \
	  echo "    apt-get install python3-venv     (or $$package)" >&2; exit 1; \
	fi; \
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  rm -rf $(VENV); "$$python" -m venv $(VENV); \
	fi; \
	echo "installing the locked requirements into $(VENV) (once; about a minute)"; \
	$(BIN)/python -m pip install --quiet --require-hashes -r $(LOCK); \
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .; \
	touch $(STAMP)

demo: $(STAMP)  ## the whole path on this machine: readings of this computer, into a lake, in a minute
	@$(BIN)/edgewater demo

test: $(STAMP)  ## unit, property, golden, house and embedded integration tests: Python only, under 5 minutes
	@EDGEWATER_REQUIRE=embedded $(BIN)/python -m pytest -n 4 -m "not long" tests/unit tests/property tests/golden tests/house tests/integration

test-all: $(STAMP)  ## everything .ci/run checks, with real services, timed per suite
	@$(BIN)/python -m tests.kit.suites

lint: $(STAMP)  ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(STAMP)  ## ruff: mend what it can, and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(STAMP)  ## mypy --strict
	@$(BIN)/mypy

imports: $(STAMP)  ## import rules between the rooms
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m pytest -q tests/house/test_imports.py

build: $(STAMP)  ## wheel and source distribution in dist/
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation --outdir dist .

light-install: $(STAMP)  ## the wheel alone on a device: size, memory, no cloud library
	@$(BIN)/python -m tests.house.light_install

bench: $(STAMP)  ## the figures of the documentation; see benchmarks/
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

lock:  ## write requirements/dev.txt anew from pyproject.toml (fetches uv)
	@set -eu; mkdir -p .cache; [ -x .cache/lock/bin/uv ] || { python3 -m venv .cache/lock; .cache/lock/bin/pip install --quiet uv; }; \
	{ echo "# Written by \`make lock\` from pyproject.toml: everything a developer needs, pinned with hashes."; \
	  .cache/lock/bin/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
	    --generate-hashes --no-header --quiet; } > .cache/dev.txt; mv .cache/dev.txt $(LOCK)

clean:  ## remove what make and the tests have made
	rm -rf $(VENV) .cache build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
