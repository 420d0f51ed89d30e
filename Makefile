# Every target does its own set-up and is instant where nothing changed.
#   make demo      the whole system on this machine, with a verdict at the end
#   make test      the default tests; make test-all adds the long ones
# Needs Python 3.11+, and for the local Kafka broker Java 17+ and Maven.
# Another interpreter: make PYTHON=/path/to/python3.12 install

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
CREDITS := $(BIN)/credits
# The first interpreter on PATH that is new enough.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
ARGS ?=
# Many tests wait for brokers and time-outs: two files of them at a time. For one at a time: make test AT_ONCE=0
AT_ONCE ?= 2

.PHONY: help
help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then echo "No Python 3.11 or newer found: install one, or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; fi
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) -m venv failed: install the venv package of your system (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }

# What runs the system; and what checks it on top. The stamps are as new as pyproject.toml when all is installed.
$(VENV)/run.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/run.stamp

.PHONY: install
install: $(VENV)/run.stamp ## make .venv with the command `credits` in it

.PHONY: demo
demo: $(VENV)/run.stamp ## everything on this machine: 200,000 events, and a verdict
	@$(CREDITS) demo $(ARGS)

.PHONY: up
up: $(VENV)/run.stamp ## broker, registry, worker, API in the foreground; Ctrl-C stops them
	@$(CREDITS) up $(ARGS)

.PHONY: bench
bench: $(VENV)/run.stamp ## throughput, latency and memory on this machine
	@$(CREDITS) bench $(ARGS)

.PHONY: test
test: $(VENV)/dev.stamp ## the default tests (ARGS='-k name' to choose)
	@$(BIN)/python -m pytest -n $(AT_ONCE) --dist loadfile $(ARGS)

.PHONY: test-all
test-all: $(VENV)/dev.stamp ## the default tests and the long ones
	@$(BIN)/python -m pytest -m 'slow or not slow' $(ARGS)

.PHONY: faults
faults: $(VENV)/dev.stamp ## provoke every fault of docs/faults.md, and write what was seen
	@$(BIN)/python -m pytest -m fault --faults-page docs/faults.md $(ARGS)

.PHONY: lint
lint: $(VENV)/dev.stamp ## ruff and mypy --strict
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy

.PHONY: format
format: $(VENV)/dev.stamp ## let ruff put the code in its form
	@$(BIN)/python -m ruff check --fix .
	@$(BIN)/python -m ruff format .

.PHONY: reference
reference: $(VENV)/run.stamp ## write docs/reference.md from the code
	@$(BIN)/python -m docs.reference && $(BIN)/python -m docs.schemas_reference

.PHONY: clean
clean: ## remove the environment and caches; the data folder .credits stays
	rm -rf $(VENV) *.egg-info build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.credits/*' -prune -exec rm -rf {} +
