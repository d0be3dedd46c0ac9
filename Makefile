# Faultline: `make help` lists what can be typed.
# Any python3 from 3.11 on will do: make PYTHON=python3.13 …
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python -m labs

# Passed on to the lab runner, which names the allowed values when one is wrong.
ON     ?= auto
SEED   ?=
REPEAT ?=
NODES  ?=
export ON SEED REPEAT NODES

.DEFAULT_GOAL := help
.PHONY: help setup labs doctor clean test sim shrink lint types bench lock

help: ## this list
	@echo "Faultline: break real services, read the verdict."
	@echo
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22
	@echo "  make lab-<name>     run one lab, e.g. make lab-partition"
	@echo "                      [ON=auto|local|compose|simulation] [SEED=7] [REPEAT=50] [NODES=5]"

setup: $(VENV)/.run ## make .venv from requirements.lock (the other targets do it by themselves)

# Bytecode is compiled once, here: without it every process start pays for it again (0.3 s a node).
$(VENV)/.run: requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not here: install Python 3.11 or newer, or say make PYTHON=…"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11: say make PYTHON=python3.11 (or newer)"; exit 2; }
	@echo "Setting up $(VENV) (once) …"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	@$(VENV)/bin/python -m compileall -q services labs
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements-test.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-test.lock
	@touch $@

labs: $(VENV)/.run ## the labs, one line each
	@$(RUN) list

lab-%: $(VENV)/.run
	@$(RUN) run $*

doctor: $(VENV)/.run ## what is here, what is missing, what to type
	@$(RUN) doctor

clean: ## remove runs, bytecode and what a killed run left behind
	@if test -x $(VENV)/bin/python; then $(RUN) sweep; fi
	@rm -rf runs .pytest_cache .ruff_cache .mypy_cache
	@find services labs tests -name __pycache__ -type d -prune -exec rm -rf {} +

test: $(VENV)/.test ## the whole test suite
	@$(VENV)/bin/python -m pytest

sim: $(VENV)/.test ## seeded simulation of the protocol cores, or of the service [RUNS=10000] [SEED=0] [SERVICE=kv]
	@if test -n "$(SERVICE)"; \
	then $(VENV)/bin/python -m tests.simulation.service --service $(SERVICE) --runs $(or $(RUNS),1000) --seed $(or $(SEED),0) --bug $(or $(BUG),none); \
	else $(VENV)/bin/python -m tests.simulation --runs $(or $(RUNS),10000) --seed $(or $(SEED),0); fi

shrink: $(VENV)/.test ## reduce a failing run of the simulated service to what matters: SEED=… [BUG=…]
	@$(VENV)/bin/python -m tests.simulation.service --shrink --seed $(or $(SEED),0) --bug $(or $(BUG),none)

lint: $(VENV)/.test ## style and types
	@$(VENV)/bin/ruff check services labs tests
	@$(VENV)/bin/ruff format --check services labs tests
	@$(VENV)/bin/mypy

bench: $(VENV)/.run ## throughput and latency, as ratios to peers measured in the same run
	@$(RUN) bench

lock: ## resolve the lock files anew (needs uv)
	uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 pyproject.toml -o requirements.lock
	uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 -c requirements.lock --group test pyproject.toml -o requirements-test.lock
