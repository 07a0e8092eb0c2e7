# Each target sets up what it needs; `make` alone lists them.
# PYTHON picks the interpreter for .venv (3.11 or newer); JOBS is how many test processes run side by side (0: none);
# ARGS is handed to the command behind the target: make test ARGS='-k ledger'.
PYTHON ?= python3
JOBS   ?= 2
ARGS   ?=

BIN    := .venv/bin
WORKER := .venv/.stamp-worker
DEV    := .venv/.stamp-dev
RAY    := .venv-ray/.stamp
SKY    := .venv/.stamp-sky
PIP    := $(BIN)/python -m pip --disable-pip-version-check install -qq --no-input --progress-bar off -c constraints.txt

export PYTHONUNBUFFERED := 1
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help venv venv-dev quickstart test test-sky test-sky-slice test-families bench paper-trace soak tiny-models lint format clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

quickstart: $(WORKER) ## serve a small model as three stages on this machine, and make a picture
	@$(BIN)/python examples/quickstart.py $(ARGS)

test: $(DEV) ## the tests, all but the slow ones
	@$(BIN)/python -m pytest -q -m 'not families and not slow and not sky and not sky_ec2' -n $(JOBS) --dist loadfile $(ARGS)

test-sky: $(SKY) ## SkyPilot for real, on a Slurm and an EC2 brought up on this machine (root; ARGS='-m sky': the Slurm only)
	@$(BIN)/python -m pytest -q -m 'sky or sky_ec2' tests/sky $(ARGS)

test-sky-slice: $(SKY) ## some minutes of it: a service on the Slurm, and its pictures
	@$(BIN)/python -m pytest -q -rs -m sky tests/sky/test_service.py -k very_pictures $(ARGS)

test-families: $(DEV) ## every model family, bit for bit, as stages and in one process
	@$(BIN)/python -m pytest -q -m families $(ARGS)

bench: $(DEV) $(RAY) ## the benchmarks, one JSON object a line, and docs/benchmarks.md (ARGS='--long', ARGS='--only cache')
	@$(BIN)/python -m bench --write docs/benchmarks.md $(ARGS)

paper-trace: $(DEV) ## the control loop on DisagFusion's trace, real processes against the simulator (five minutes)
	@$(BIN)/python -m bench.paper_trace $(ARGS)

soak: $(DEV) ## real processes under load while things are killed at random (ten minutes; ARGS='--minutes 60 --seed 7')
	@$(BIN)/python -m tests.soak $(ARGS)

tiny-models: $(WORKER) ## tiny random-weight models of every family, into .tiny-models/
	@$(BIN)/python -m tests.tiny .tiny-models $(ARGS)

lint: $(DEV) ## style, types and the direction of imports
	@$(BIN)/ruff check --output-format concise .
	@$(BIN)/ruff format --check --output-format concise .
	@$(BIN)/mypy $(wildcard disagctl planner stages task_templates bench examples tests)
	@$(BIN)/lint-imports --no-logo

format: $(DEV) ## rewrite the sources in the house style
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

venv: $(WORKER) ## .venv with what quickstart needs

venv-dev: $(DEV) ## .venv with the development tools as well

clean: ## remove caches, build artefacts and outputs (.venv stays)
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .tiny-models quickstart-output
	@find . -name .venv -prune -o -name .git -prune -o -type d -name __pycache__ -print0 | xargs -0 rm -rf

distclean: clean ## clean, and remove .venv and .venv-ray
	@rm -rf .venv .venv-ray

test test-sky test-sky-slice test-families: export OMP_NUM_THREADS ?= 1

# --- .venv ------------------------------------------------------------------------------------------------------
# The stamps are newer than what they were made from; as long as they are, no pip runs.

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "error: no '$(PYTHON)' here: install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1); 3.11 or newer is needed: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: '$(PYTHON)' lacks venv: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }
	@"$(PYTHON)" -m venv .venv

$(WORKER): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing disagctl and a CPU worker into .venv (about a minute the first time) ..." >&2
	@$(PIP) -e '.[worker-cpu]'
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing disagctl, a CPU worker and the development tools into .venv (about a minute the first time) ..." >&2
	@$(PIP) -e '.[worker-cpu,dev]'
	@touch $(WORKER) $@

$(SKY): $(DEV)
	@echo "installing SkyPilot into .venv (about a minute the first time) ..." >&2
	@$(PIP) -e '.[sky-test]'
	@touch $@

# The peer of the benchmarks, in an environment of its own: it pins what we do not. Without it they run all the same.
$(RAY): | $(BIN)/python
	@echo "installing Ray Serve, to compare with, into .venv-ray ..." >&2
	@"$(PYTHON)" -m venv .venv-ray
	@.venv-ray/bin/python -m pip --disable-pip-version-check install -qq --no-input --progress-bar off 'ray[serve]==2.60.0' \
	  && touch $@ || { rm -rf .venv-ray; echo "Ray Serve cannot be installed here: its figures will be missing" >&2; }
