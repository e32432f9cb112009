# Each target does its own set-up: it makes .venv and installs the locked versions that it needs, and no more.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
# What it holds, as on clusters with modules, pip would take for installed.
unexport PYTHONPATH
DEV := .venv/ready-dev
# Of pip only errors: its warnings are about the index, and help nobody here. It would compile on one core.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile
COMPILE := $(BIN)/python -m compileall -qq -j 0 .venv/lib || true  # packages ship files that are no Python, too

.PHONY: help all table2 status report published test test-long test-faults test-slurm coverage lint docs bench clean

help: ## show the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

all: $(READY) ## every table of the protocol in config.yaml
	$(BIN)/python -m snakemake --cores all

table2: $(READY) ## Table 2: ten thresholds, trained
	$(BIN)/python -m snakemake --cores all results/table2.csv
	@echo "make: Table 2 is in results/table2.md and results/table2.csv; next: . .venv/bin/activate, then"
	@echo "make: snakemake --cores all    for every table, figure and claim, and results/report.html"

status: | $(READY) ## what is finished, running, failed and to come; ARGS="--watch 10"
	@$(BIN)/python -m workflow.status $(ARGS)

report: | $(READY) ## a page of what is finished so far, while a sweep runs: results/demo/partial/report.html
	@$(BIN)/python -m workflow.report.partial $(ARGS)

published: $(READY) ## redraw the published results, in seconds and without training
	$(BIN)/python -m workflow.publish draw

test: lint ## linters, type checker and tests, about eight minutes
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-long: $(DEV) ## the tests that take longest: every command of the documentation, runs killed and continued
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder -m "long and not slow and not slurm" \
	  $$(grep -rl 'mark\.long' tests --include='test_*.py' | sort -r)

test-faults: $(DEV) ## every fault as often as docs/reliability.md says, about half an hour
	$(BIN)/python -m pytest --numprocesses auto -m "slow or long or not slow" tests/faults

test-slurm: $(DEV) ## Table 2 through a SLURM cluster of one node; installs Debian's SLURM, as root
	@$(BIN)/python -c 'from tests.cluster.slurm import missing; exit(bool(missing()))' || { \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; } || \
	    { echo "make: test-slurm needs slurmctld, slurmd and munged; apt-get installs them, as root on Debian"; exit 2; }; \
	  apt-get update --quiet && DEBIAN_FRONTEND=noninteractive \
	    apt-get install --quiet --yes --no-install-recommends slurm-wlm slurmctld slurmd slurm-client munge; }
	$(BIN)/python -m pytest -m slurm tests/cluster

coverage: $(DEV) ## which lines and branches `make test` does not run, by package; half as long again as the tests
	-$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --cov --cov-report=
	$(BIN)/coverage json --quiet -o .venv/coverage.json
	$(BIN)/python -m tests.coverage .venv/coverage.json

docs: $(DEV) ## the documentation as a site, in site/
	$(BIN)/mkdocs build --strict

bench: $(DEV) ## speed: tables on the screen and in results/benchmarks/, about 15 minutes
	$(BIN)/python -m benchmarks.step --compile --threads 1 2
	$(BIN)/python -m benchmarks.workflow

lint: $(DEV) ## linters and type checker alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy

clean: ## remove .venv; results stay
	rm -rf .venv

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c '' || { echo "make: $(PYTHON) does not start; name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "make: $(PYTHON) is none of 3.11 to 3.13; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	@echo "make: installing the locked versions into .venv, once"
	@$(INSTALL) --requirement requirements.lock
	@$(INSTALL) --no-deps --editable .
	@$(COMPILE)
	@touch $@

$(DEV): $(READY) requirements-dev.lock
	@echo "make: installing linters, tests and documentation into .venv, once"
	@$(INSTALL) --requirement requirements.lock --requirement requirements-dev.lock
	@$(COMPILE)
	@touch $@
