# `make demo` and `make test` are all a newcomer needs; each sets itself up once and never again until the pins change.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
# One more than cores, which are idle while a test writes, waits for its subprocess, or traces beside a compilation that has ended.
WORKERS ?= $(shell echo $$(($$(nproc 2>/dev/null || echo 2) + 1)))
SYNC = $(BIN)/uv pip sync --quiet --require-hashes --strict --compile-bytecode --python $(BIN)/python

.PHONY: help demo test test-slow lint docs bench pins clean

help:
	@echo "make demo       sample a network's posterior, audit it, write the report (80 s on two cores)"
	@echo "make test       run the tests;  make test-slow: the long ones (kills, coverage, notebooks)"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make docs       build the documentation into docs/_build"
	@echo "make bench      speed as ratios against peers and limits"
	@echo "make pins       rewrite requirements/ from pyproject.toml"
	@echo "make clean      remove $(VENV) and build products (runs/ is left alone)"

# The first Python >= 3.12 on the PATH makes the environment; PYTHON=... overrides the search.
$(BIN)/python:
	@python=""; for p in $(PYTHON) python3 python3.14 python3.13 python3.12 python; do \
	  if command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then python=$$p; break; fi; done; \
	if [ -z "$$python" ]; then echo "bayesnn needs Python 3.12 or newer on the PATH (or PYTHON=/path/to/python); found: $$(python3 --version 2>&1)" >&2; exit 2; fi; \
	echo "Making $(VENV) with $$($$python --version)"; $$python -m venv $(VENV)

$(VENV)/.bootstrap: requirements/bootstrap.txt | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# dev.txt contains run.txt, so a development environment is never stripped back.
$(VENV)/.run: requirements/run.txt pyproject.toml $(VENV)/.bootstrap
	@echo "Installing pinned packages (once)"
	@if [ -e $(VENV)/.dev ]; then $(MAKE) --no-print-directory $(VENV)/.dev; else \
	  $(BIN)/uv pip install --quiet --require-hashes --compile-bytecode --python $(BIN)/python -r requirements/run.txt; fi
	@$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml $(VENV)/.bootstrap
	@echo "Installing pinned packages for development (once)"
	@$(BIN)/uv pip install --quiet --require-hashes --compile-bytecode --python $(BIN)/python -r requirements/dev.txt
	@$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python -e .
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run
	@$(BIN)/bayesnn demo

# The tests of a file stay in one process, where they share compiled programs and what fixtures made. A process that dies ends the
# run: pytest-xdist waits for ever where it replaces one.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --max-worker-restart 0

test: $(VENV)/.dev
	@$(PYTEST) -m "not slow"

test-slow: $(VENV)/.dev
	@$(PYTEST) -m slow

lint: $(VENV)/.dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

docs: $(VENV)/.dev
	@$(BIN)/sphinx-build -W --keep-going -q -j $(WORKERS) -b html docs docs/_build && echo "docs/_build/index.html"

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks

PINS = $(BIN)/uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-header --no-annotate pyproject.toml
pins: $(VENV)/.bootstrap
	@$(PINS) -o requirements/run.txt
	@$(PINS) --extra cuda -c requirements/run.txt -o requirements/cuda.txt
	@$(PINS) --extra tpu -c requirements/run.txt -o requirements/tpu.txt
	@$(PINS) --group dev -c requirements/run.txt -o requirements/dev.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-header --no-annotate --group bootstrap -o requirements/bootstrap.txt

clean:
	rm -rf $(VENV) build dist docs/_build docs/generated *.egg-info
