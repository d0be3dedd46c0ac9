# Faultline: `make help` lists what can be typed.
# Any python3 from 3.11 on will do: make PYTHON=python3.13 …
PYTHON ?= python3
VENV   := .venv
LABS   := $(VENV)/bin/python -m labs

# Passed on to the lab runner, which names the allowed values when one is wrong.
ON     ?= auto
SEED   ?=
REPEAT ?=
NODES  ?=
FAULTS ?=
export ON SEED REPEAT NODES FAULTS

.DEFAULT_GOAL := help
.PHONY: help setup labs report traces compare doctor clean test sim zoo shrink lint types bench bench-checkers frontier-quorum lock kafka \
	up observe status cut heal logs down images-offline engine

help: ## this list
	@echo "Faultline: break real services, read the verdict."
	@echo
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22
	@echo "  make lab-<name>     run one lab, e.g. make lab-partition"
	@echo "                      [ON=auto|local|compose|simulation] [SEED=7] [REPEAT=50] [NODES=5]"
	@echo "                      [FAULTS=proxies|packets]"

setup: $(VENV)/.run ## make .venv from requirements.lock (the other targets do it by themselves)

# Bytecode is compiled once, here: without it every process start pays for it again (0.3 s a node).
$(VENV)/.run: requirements.lock requirements-embedded.lock requirements-report.lock
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not here: install Python 3.11 or newer, or say make PYTHON=…"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11: say make PYTHON=python3.11 (or newer)"; exit 2; }
	@echo "Setting up $(VENV) (once) …"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock -r requirements-embedded.lock -r requirements-report.lock
	@$(VENV)/bin/python -m compileall -q services labs
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements-test.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-test.lock
	@touch $@

labs: $(VENV)/.run ## the labs, one line each
	@$(LABS) list

lab-%: $(VENV)/.run
	@$(LABS) run $*

report: $(VENV)/.run ## open the report of a run, the latest or [RUN=<name>]
	@$(LABS) report

logs: $(VENV)/.run ## of the latest run, or of `make up` [REQUEST=<id>] [NODE=n1] [AT=4.2-4.5] [LEVEL=…] [TEXT=…] [RUN=…]
	@$(LABS) logs

traces: $(VENV)/.run ## what failed or took long; [OP=17] or [REQUEST=<id>]: its waterfall and lines
	@$(LABS) traces

compare: $(VENV)/.run ## two runs side by side: A=<run> B=<run>
	@$(LABS) compare

doctor: $(VENV)/.run ## what is here, what is missing, what to type
	@$(LABS) doctor

clean: ## remove runs, bytecode and what a killed run left behind
	@if test -x $(VENV)/bin/python; then $(LABS) sweep; fi
	@rm -rf runs .pytest_cache .ruff_cache .mypy_cache
	@find services labs tests -name __pycache__ -type d -prune -exec rm -rf {} +

# No clock, no sockets: what else runs beside them changes nothing.
COMPUTING := tests/checkers tests/protocols tests/simulation tests/test_lint.py tests/test_tidy.py

test: $(VENV)/.test ## the whole test suite: what only computes on every core, the rest one by one
	@code=0; \
	$(VENV)/bin/python -m pytest -n auto --dist worksteal $(COMPUTING) || code=$$?; \
	$(VENV)/bin/python -m pytest $(addprefix --ignore=,$(COMPUTING)) || code=$$?; \
	exit $$code

sim: $(VENV)/.test ## seeded simulation of a core, or of the service [PROTOCOL=raft|paxos|causal|primary_backup|quorum|data_types|gossip|multi_leader|viewstamped|zab|chain] [SERVICE=kv] [RUNS=10000] [SEED=0]
	@if test -n "$(SERVICE)"; \
	then $(VENV)/bin/python -m tests.simulation.service --service $(SERVICE) --protocol $(or $(PROTOCOL),raft) --runs $(or $(RUNS),1000) --seed $(or $(SEED),0) --bug $(or $(BUG),none); \
	else $(VENV)/bin/python -m tests.simulation --protocol $(or $(PROTOCOL),raft) --runs $(or $(RUNS),10000) --seed $(or $(SEED),0) --bug $(or $(BUG),none); fi

zoo: $(VENV)/.test ## every planted bug: how soon the simulation finds it, and the seed [PROTOCOL=…] [BUG=…]
	@$(VENV)/bin/python -m tests.simulation.zoo $(if $(PROTOCOL),--protocol $(PROTOCOL)) $(if $(BUG),--bug $(BUG))

shrink: $(VENV)/.test ## reduce a failing run of the simulated service to what matters: SEED=… [PROTOCOL=raft] [BUG=…]
	@$(VENV)/bin/python -m tests.simulation.service --shrink --protocol $(or $(PROTOCOL),raft) --seed $(or $(SEED),0) --bug $(or $(BUG),none)

up: $(VENV)/.run ## containers for free play: store, links, Redis, Kafka [BROKERS=1|3]
	@BROKERS=$(BROKERS) $(LABS) up

observe: $(VENV)/.run ## free play with Prometheus, Grafana and Jaeger beside it [BROKERS=1|3]
	@BROKERS=$(BROKERS) $(LABS) observe

status: $(VENV)/.run ## free play: nodes, roles, who can reach whom
	@$(LABS) status

cut: $(VENV)/.run ## free play: a fault on one link, FROM=n1 TO=n2 [FAULT=blackhole]
	@$(LABS) cut $(or $(FROM),n1) $(or $(TO),n2) $(or $(FAULT),blackhole)

heal: $(VENV)/.run ## free play: take every fault away
	@$(LABS) heal

down: $(VENV)/.run ## free play: remove all of it, data included
	@$(LABS) down

engine: ## a Docker engine for a Debian machine that has none (as root)
	@compose/engine.sh

images-offline: kafka ## stand-ins for the base images where no registry is reached (Debian, as root)
	@compose/images-offline.sh

kafka: $(VENV)/.run ## fetch Apache Kafka for local runs (needs Java 17 and Maven)
	@$(VENV)/bin/python -m labs.harness.testbed.members.kafka_install

lint: $(VENV)/.test ## style and types
	@$(VENV)/bin/ruff check services labs tests
	@$(VENV)/bin/ruff format --check services labs tests
	@$(VENV)/bin/mypy

frontier-quorum: $(VENV)/.run ## what R and W cost and give under faults, sloppy or strict: a table and a page [RUNS=10] [SEED=0]
	@RUNS=$(or $(RUNS),10) SEED=$(or $(SEED),0) $(LABS) frontier-quorum

bench: $(VENV)/.run ## throughput and latency, as ratios to peers measured in the same run
	@$(LABS) bench

bench-checkers: $(VENV)/.run ## the checkers beside porcupine, where Go is here [QUICK=1]
	@$(VENV)/bin/python -m labs.harness.checkers.bench $(if $(QUICK),--quick)

lock: ## resolve the lock files anew (needs uv)
	uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 pyproject.toml -o requirements.lock
	uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 -c requirements.lock --group embedded -o requirements-embedded.lock
	uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 -c requirements.lock --group report -o requirements-report.lock
	uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 -c requirements.lock -c requirements-report.lock --group report --group test pyproject.toml -o requirements-test.lock
