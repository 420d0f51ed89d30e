# Every target does its own set-up and is instant where nothing changed.
#   make demo      the whole system on this machine, with a verdict at the end
#   make check     lint, types and the quick tests; make test: the default tests; make test-all adds the long ones
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
# By files, in the order of tests/conftest.py: the cheap ones first, and files of many minutes not last.
PYTEST = $(BIN)/python -m pytest -n $(AT_ONCE) --dist loadfile --no-loadscope-reorder
# The whole way on a real broker: a purchase, a hold, its usage, and what the ledger says of them.
ON_A_BROKER := tests/integration/ledger/test_client_example.py::test_a_service_holds_and_captures[100-]

.PHONY: help
help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then echo "No Python 3.11 or newer found: install one, or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; fi
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) -m venv failed: install the venv package of your system (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }

# What runs the system; and what checks it on top. The stamps are as new as pyproject.toml when all is installed.
# Every package has one version and the hashes of its files in requirements/*.txt; the project itself fetches nothing.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PROJECT := $(PIP_INSTALL) --no-deps --no-build-isolation --editable .

$(VENV)/run.stamp: pyproject.toml requirements/run.txt | $(BIN)/python
	$(PIP_INSTALL) --require-hashes --requirement requirements/run.txt
	$(PROJECT)
	@touch $@

$(VENV)/dev.stamp: pyproject.toml requirements/dev.txt requirements/run.txt | $(BIN)/python
	$(PIP_INSTALL) --require-hashes --requirement requirements/dev.txt
	$(PROJECT)
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
	@$(PYTEST) $(ARGS)

.PHONY: check
check: $(VENV)/dev.stamp ## an answer in minutes: lint, types, quick tests, one test on a broker
	@$(MAKE) --no-print-directory --jobs=3 --keep-going --output-sync=target lint check-quick check-broker

.PHONY: check-quick check-broker
check-quick: $(VENV)/dev.stamp
	@$(PYTEST) tests/tidy tests/unit tests/contract $(ARGS)

check-broker: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest '$(ON_A_BROKER)'

.PHONY: test-all
test-all: $(VENV)/dev.stamp ## the default tests and the long ones, and more examples of each law
	@CREDITS_TEST_HYPOTHESIS_PROFILE=$${CREDITS_TEST_HYPOTHESIS_PROFILE:-thorough} \
		$(BIN)/python -m pytest -m 'slow or not slow' $(ARGS)

.PHONY: faults
faults: $(VENV)/dev.stamp ## provoke every fault of docs/faults.md, and write what was seen
	@$(BIN)/python -m pytest -m fault -n $(AT_ONCE) --dist loadfile --faults-page=docs/faults.md tests $(ARGS)

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

# One lock for every system and for Python 3.11 and later, by markers. What is in the locks stays as it is where it still
# fits; ARGS=--upgrade takes the newest versions, ARGS='--upgrade-package NAME' those of one package.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	$(ARGS) pyproject.toml requirements/build.in

.PHONY: lock
lock: | $(BIN)/python ## write requirements/*.txt from pyproject.toml: versions and hashes
	@test -x $(BIN)/uv || $(PIP_INSTALL) uv
	@$(LOCK) --output-file requirements/run.txt
	@$(LOCK) --extra dev --constraint requirements/run.txt --output-file requirements/dev.txt

.PHONY: licences
licences: $(VENV)/dev.stamp ## write THIRD_PARTY.md: the licences of what is installed
	@$(BIN)/python -m docs.licences

.PHONY: audit
audit: $(VENV)/dev.stamp ## hashes, versions, licences, and known vulnerabilities (ARGS=--offline: without asking)
	@$(BIN)/python -m docs.audit $(ARGS)

.PHONY: clean
clean: ## remove the environment and caches; the data folder .credits stays
	rm -rf $(VENV) *.egg-info build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.credits/*' -prune -exec rm -rf {} +
