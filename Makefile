# What people need, one target each. `make help` lists them.
# Everything runs in .venv, which is created on first use and updated when pyproject.toml changes.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/sh

VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

# The first interpreter that is new enough; a name on the PATH may be an older one, or a shim that does not run.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$python; break; fi; \
	done)

## demo: real logs and 2 million generated events, end to end, compared with the ground truth (ARGS="--events 500000")
.PHONY: demo
demo: $(READY)
	@$(BIN)/adledger demo $(ARGS)

## test: unit, property, contract and integration tests (ARGS="-k dedupe"; PROCESSES=0 runs them in one process)
# One process more than there are cores, since tests wait for servers a fifth of the time. Files in their order: the long ones
# of tests/integration first, the short ones of tests/unit last, so that all processes end at about the same time.
PROCESSES ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
.PHONY: test
test: $(READY)
	@$(BIN)/pytest -m "not slow and not benchmark" --numprocesses $(PROCESSES) --maxprocesses 4 \
	  --dist loadfile --no-loadscope-reorder $(ARGS)

## test-python: the unit tests on another Python, in an environment of its own (PYTHON=python3.13; TESTS=tests/unit/test_app.py)
.PHONY: test-python
TESTS ?= tests/unit
test-python:
	@$(MAKE) --no-print-directory test PROCESSES=0 ARGS="$(TESTS) $(ARGS)" \
	  VENV=.venv-$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

## bench: measure the stages one by one (ARGS="-k decode")
.PHONY: bench
bench: $(READY)
	@$(BIN)/pytest -m benchmark -s $(ARGS)

## bench-comparison: the same job done by Faust, Quix Streams, Flink, bare loops and adledger, side by side (ARGS="--rounds 1 --only faust,adledger")
.PHONY: bench-comparison
bench-comparison: $(READY)
	@$(BIN)/python -m adledger.loadtest.benchmarks $(ARGS)

## test-brokers: three Kafka brokers on this machine that are rolled, killed and elected uncleanly, old releases, rights; about fifteen minutes (ARGS="-k rolled")
.PHONY: test-brokers
test-brokers: $(READY)
	@$(BIN)/pytest -m "not benchmark" tests/integration/test_kafka_cluster.py tests/integration/test_kafka_election.py \
	  tests/integration/test_kafka_election_lanes.py tests/integration/test_kafka_lost_brokers.py \
	  tests/integration/test_kafka_damaged.py tests/integration/test_kafka_pauses.py \
	  tests/integration/test_kafka_old_versions.py tests/integration/test_kafka_rights.py $(ARGS)

## simulate: the whole pipeline under faults, in virtual time (SEEDS=5000..6999; SEEDS=1234..1234 TRACE=1 prints one run)
SEEDS ?= 0..1999
.PHONY: simulate
simulate: $(READY)
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(if $(OVERWRITES),--overwrites) $(if $(TRACE),--trace) \
	  $(if $(MUTATION),--mutation "$(MUTATION)")

## fuzz: malformed record batches and records against the decoders' laws (SECONDS=3600; ARGS="--seed 5 --target batches")
SECONDS ?= 60
.PHONY: fuzz
fuzz: $(READY)
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

## simulate-nightly: 100,000 seeds, and 20,000 more with an overwritten log in each; hours (NIGHT=5000000 for other seeds)
NIGHT ?= 1000000
.PHONY: simulate-nightly
simulate-nightly: $(READY)
	@$(BIN)/python -m tests.simulation --seeds $(NIGHT)..$$(($(NIGHT) + 99999)) --processes $$(getconf _NPROCESSORS_ONLN)
	@$(BIN)/python -m tests.simulation --seeds $(NIGHT)..$$(($(NIGHT) + 19999)) --processes $$(getconf _NPROCESSORS_ONLN) --overwrites

## chaos: real servers and workers under every fault we know, while traffic with known ground truth flows; about 7 minutes
.PHONY: chaos
chaos: $(READY)
	@$(BIN)/adledger chaos $(ARGS)

## soak: backpressure; ClickHouse is down for 10 minutes at full input (ARGS="--outage 1h")
.PHONY: soak
soak: $(READY)
	@$(BIN)/adledger chaos --faults outage --outage 10m --rate 2000 --no-controls $(ARGS)

## model: search every state of the lane protocol, and show what breaks without each rule (MUTANT=no-wait prints one trace)
.PHONY: model
model: $(READY)
	@$(BIN)/python -m docs.model $(MUTANT)

## fraud-eval: measure the fraud rules on labelled traffic and the real logs, into docs/fraud-eval.md
.PHONY: fraud-eval
fraud-eval: $(READY)
	@$(BIN)/python -m adledger.loadtest.fraud_eval $(ARGS)

## methodology: regenerate docs/methodology.md from the rules and the shipped rule set
.PHONY: methodology
methodology: $(READY)
	@$(BIN)/python -m adledger.pipeline.rules.methodology > docs/methodology.new
	@mv docs/methodology.new docs/methodology.md

## observability: regenerate Prometheus's alert rules, Grafana's dashboards and the alert table of docs/operations.md
.PHONY: observability
observability: $(READY)
	@$(BIN)/python -m docs.observability

## coverage: branch coverage of the unit, property, contract and simulation tests: the total, and the 20 least covered modules
# ARGS="--cov-report=html" writes htmlcov/ too. Integration tests are left out: they take long, and their workers are other processes.
.PHONY: coverage
coverage: $(READY)
	@$(BIN)/pytest -q -m "not slow and not benchmark" --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --cov-report= \
	  tests/simulation/test_simulation.py tests/properties tests/contracts tests/unit $(ARGS)
	@$(MAKE) --no-print-directory coverage-report

## coverage-report: the branch coverage of the last run that measured it (make test ARGS="--cov --cov-report=")
.PHONY: coverage-report
coverage-report: $(READY)
	@mkdir -p build
	@$(BIN)/coverage report --sort=cover > build/coverage.txt || { cat build/coverage.txt >&2; exit 1; }
	@awk 'NR <= 22 || /^TOTAL/' build/coverage.txt

## wheel: build the packages, check them, install the wheel in an environment of its own, run the demo from it
.PHONY: wheel
wheel: $(READY)
	@PYTHON="$(PYTHON)" BIN="$(BIN)" sh .ci/wheel

## lint: ruff's rules and format, import contracts, spelling; changes nothing
.PHONY: lint
lint: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/lint-imports
	@$(BIN)/ruff format --check
	@$(BIN)/codespell

## types: mypy, strict
.PHONY: types
types: $(READY)
	@$(BIN)/mypy

## format: let ruff fix and format the code
.PHONY: format
format: $(READY)
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

## ci: everything that CI runs, on this machine
.PHONY: ci
ci:
	@bash .ci/run

## setup: create .venv (the other targets do this automatically)
.PHONY: setup
setup: $(READY)

## lock: write the installed versions to constraints.txt
.PHONY: lock
lock: $(READY)
	@{ sed -n 1p constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | grep -v '^pip=='; } > constraints.new
	@mv constraints.new constraints.txt

## clean: remove .venv, caches and build output (never your data)
.PHONY: clean
clean:
	@rm -rf $(VENV) .venv-* build dist htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find adledger pipeline schemas sinks loadtest tests -name __pycache__ -type d -prune -exec rm -rf {} +

## help: this list
.PHONY: help
help:
	@sed -n 's/^## \([a-z-]*\): \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-25s %s\n", $$1, $$2}'

# pip learnt dependency groups in 25.1; a new venv may begin with an older one.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "adledger needs Python 3.11 or newer, and found none; install one, or: make PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "no virtual environment could be made; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@echo "installing adledger into $(VENV) (once; a minute or two)" >&2
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[embedded,loadtest]' --group dev
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true # with all cores; pip uses one, for 50 s. Not every file is for this Python
	@touch $@
