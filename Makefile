# One tool per need; `make help` lists them. PYTHON may name the interpreter of any environment.
PYTHON ?= python3
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup:  ## environment in .venv and the commit hooks
	$(PYTHON) -m venv .venv && .venv/bin/pip install -q -e '.[dev]' && .venv/bin/pre-commit install

native:  ## build the CPU kernels into the source tree
	PYTHONPATH=src $(PYTHON) -m llamakit.kernels.cpu.build

fmt:  ## format and fix
	$(PYTHON) -m ruff check --fix src tests bench; $(PYTHON) -m ruff format src tests bench

check:  ## what a change must pass: lint, format, types, floors
	$(PYTHON) -m ruff check src tests bench
	$(PYTHON) -m ruff format --check src tests bench
	$(PYTHON) -m pyright
	lint-imports

test:  ## default tests, on CPU
	$(PYTHON) -m pytest

test-all:  ## slow and peer tests too
	$(PYTHON) -m pytest -m "slow or not slow"

routes:  ## every route of the server, and the tests that reach it
	$(PYTHON) -m pytest --routes tests/unit/server tests/unit/stack tests/flows

bench:  ## one question: make bench Q=run_1b
	$(PYTHON) bench/$(Q).py

size:  ## lines per room
	@for room in src/llamakit/*/; do printf '%7d  %s\n' "$$(find $$room -name '*.py' -o -name '*.cpp' -o -name '*.h' | xargs cat | wc -l)" "$$room"; done | sort -rn

.PHONY: help setup native fmt check test test-all routes bench size
