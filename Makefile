# Everything runs in .venv; `make help` lists the targets. CI calls exactly these.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

export RAY_USAGE_STATS_ENABLED := 0
test test-slow demo bench: export HF_HUB_OFFLINE := 1

.PHONY: help install demo test test-slow lint typecheck bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed-dev  ## .venv with everything that tests and checks need

demo: .venv/installed-demo  ## embed Python's own docstrings and ask a few questions
	$(BIN)/twofold demo

test: .venv/installed-dev  ## unit, integration and end-to-end tests, under ten minutes on 2 cores
	$(BIN)/pytest

test-slow: .venv/installed-dev  ## kill matrix, big inputs: what takes longer
	$(BIN)/pytest -m "slow and not gpu and not network" --timeout=1800

lint: .venv/installed-dev  ## style, import contracts, docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python .ci/docstrings.py command_line encoder pipelines serving twofold.py

typecheck: .venv/installed-dev  ## mypy --strict
	$(BIN)/mypy

bench: .venv/installed-dev  ## the job against the bare encoder loop, one JSON line each
	$(BIN)/python -m benchmarks.embed

clean:  ## remove .venv and everything that tools left
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	rm -rf .hypothesis

# Two stamps: the demo installs the small set, tests the large one, which contains the small.
.venv/installed-demo: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) install -c constraints.txt -e '.[cpu,demo]'
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) install -c constraints.txt -e '.[cpu,demo,dev]'
	touch .venv/installed-demo $@

.venv/bin/python:
	$(PYTHON) -m venv .venv
