# Everything runs in .venv; `make help` lists the targets. CI calls exactly these.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PEERS := fastembed infinity infinity-onnx \
	sentence-transformers sentence-transformers-onnx sentence-transformers-openvino
LINES := .bench/lines

export RAY_USAGE_STATS_ENABLED := 0
test test-slow demo bench bench-loop bench-serve profile: export HF_HUB_OFFLINE := 1

.PHONY: help install demo test test-slow lint typecheck bench bench-loop bench-serve bench-peers bench-report \
	profile clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed-dev  ## .venv with everything that tests and checks need

demo: .venv/installed-demo  ## embed Python's own docstrings and ask a few questions
	$(BIN)/twofold demo

test: .venv/installed-dev  ## unit, integration and end-to-end tests, 8 minutes on 2 cores with AVX-512
	$(BIN)/pytest -n auto --maxprocesses 4 --max-worker-restart 0 --dist loadfile tests/unit
	$(BIN)/pytest tests/integration tests/e2e

test-slow: .venv/installed-dev  ## kill matrix, big inputs: what takes longer
	$(BIN)/pytest -m "slow and not gpu and not network" --timeout=1800 --durations=20

lint: .venv/installed-dev  ## style, import contracts, docstrings, the documents' figures, Dockerfile, scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python .ci/docstrings.py command_line encoder pipelines serving twofold.py
	$(BIN)/python -m benchmarks.report --check
	$(BIN)/hadolint k8s/Dockerfile
	$(BIN)/shellcheck .ci/run k8s/e2e.sh k8s/overlays/embed-schedule/create-rayjob.sh

typecheck: .venv/installed-dev  ## mypy --strict
	$(BIN)/mypy

bench: .venv/installed-dev  ## limit, encoder and job beside the peers that are installed, in ten minutes
	rm -rf $(LINES)
	$(BIN)/python -m benchmarks.encode --lines $(LINES)/encode.jsonl
	$(BIN)/python -m benchmarks.job --lines $(LINES)/job.jsonl
	$(BIN)/python -m benchmarks.report --print --lines $(LINES)/encode.jsonl $(LINES)/job.jsonl

bench-loop: .venv/installed-dev  ## the job against the bare encoder loop, one JSON line each
	$(BIN)/python -m benchmarks.embed

bench-report: .venv/installed-dev  ## the documents' tables and docs/plots from docs/measurements
	$(BIN)/python -m benchmarks.report

bench-serve: .venv/installed-dev  ## the endpoint against the peers that are installed, one JSON line each
	$(BIN)/python -m benchmarks.serve

profile: .venv/installed-dev  ## flame graphs of the encoder and of a job into .bench/profiles (py-spy)
	$(BIN)/python -m benchmarks.profile

bench-peers: $(PEERS:%=.bench/peers/%/installed)  ## environments for the peers, 1 to 2 GB each

.bench/peers/%/installed: benchmarks/peers/%.txt
	$(PYTHON) -m venv --clear .bench/peers/$*
	.bench/peers/$*/bin/python -m pip --disable-pip-version-check --quiet install -r $<
	# No peer needs it for texts; PyPI's does not load beside a CPU build of torch, and breaks transformers.
	.bench/peers/$*/bin/python -m pip --quiet --quiet uninstall --yes torchvision
	touch $@

clean:  ## remove .venv and everything that tools left
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	rm -rf .hypothesis .bench

# Two stamps: the demo installs the small set, tests the large one, which contains the small.
.venv/installed-demo: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) install -c constraints.txt -e '.[cpu,demo]'
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) install -c constraints.txt -e '.[cpu,demo,evaluate,export,int8,dev]'
	touch .venv/installed-demo $@

.venv/bin/python:
	$(PYTHON) -m venv .venv
