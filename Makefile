# Every target works from a fresh clone on Debian 12, as root, with nothing prepared.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON := build/venv/bin/python
BIN := build/venv/bin
PURE := $(foreach d,netns firewall tracing ssl storage,--cov=hostlerd.$(d).plan --cov=hostlerd.$(d).model)

.PHONY: help prepare demo test test-vm soak lint bench deb clean

help:
	@echo 'make demo   three real hosts, a private network for a process on each, from one command'
	@echo 'make test   unit tests, kernel tests, tests on real hosts'
	@echo 'make test-vm  what containers cannot show, on emulated machines: limits, power cuts, clocks'
	@echo 'make soak   the long versions of the tests of kills, floods and faults: hours'
	@echo 'make lint   ruff, mypy, import contracts, buf'
	@echo 'make bench  side by side with the usual tools: [ONLY=name] [LONG=1]; table and build/bench.json'
	@echo 'make deb    Debian packages in build/deb'
	@echo 'make clean  remove everything that was built, the lab included'

prepare:
	@packaging/prepare

demo: prepare
	@$(PYTHON) tests/hosts/demo.py

test: prepare
	@$(PYTHON) -m pytest -n 3 tests/unit tests/kernel tests/hosts \
		$(PURE) --cov-branch --cov-report=term:skip-covered --cov-fail-under=95 $(ARGS)

test-vm: prepare
	@$(PYTHON) -m pytest tests/vm $(ARGS)

soak: prepare
	@HOSTLER_SOAK=1 $(PYTHON) -m pytest tests/unit tests/kernel tests/hosts tests/vm -m soak $(ARGS)

lint: prepare
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@cd protos && ../$(BIN)/buf lint
	@packaging/breaking

bench: prepare
	@$(PYTHON) tests/bench/run.py $(if $(ONLY),--only=$(ONLY)) $(if $(LONG),--long)

deb: prepare
	@$(PYTHON) packaging/debian/build.py

clean:
	@if [ -x $(PYTHON) ] && [ -d build/lab ]; then $(BIN)/hostler lab down; fi
	@rm -rf build client/hostler/api .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache .coverage
	@find services client tests packaging -name __pycache__ -type d -prune -exec rm -rf {} +
