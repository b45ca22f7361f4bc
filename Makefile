# The words of this project: `make` prints them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.bench-installed

.DEFAULT_GOAL := help
.PHONY: help demo test soak lint format bench dev clean

help: ## print this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## run the main job on real input, offline, and show what it made
	@$(BIN)/python examples/demo.py

test: $(INSTALLED) ## run the tests
	@$(BIN)/python -m pytest -n 2 --dist loadscope $(ARGS)

soak: $(INSTALLED) ## kill runs at any moment, hundreds of times, and harm every kind of file; takes most of an hour
	@failed=0; \
	$(BIN)/python -m tests.integration.crash $(ARGS) || failed=1; \
	$(BIN)/python -m tests.integration.damage || failed=1; \
	$(BIN)/python -m pytest -m soak -n 2 --dist worksteal || failed=1; \
	exit $$failed

lint: $(INSTALLED) ## check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED) ## put the code in the style that lint checks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BENCH_INSTALLED) ## measure against the targets, and beside distilabel 1.5.3, which it installs apart; takes half an hour
	@$(BIN)/python -m benchmarks.compare $(ARGS)
	@$(if $(ARGS),,$(BIN)/python -m benchmarks.calls)
	@$(if $(ARGS),,$(BIN)/python -m benchmarks.ledger)

dev: $(INSTALLED) ## bring up Dagster's UI on http://127.0.0.1:3000
	@$(BIN)/dagster dev --workspace workspace.yaml $(ARGS)

clean: ## remove .venv, Dagster's runs and the caches of tools; the cache of pipelines stays
	rm -rf $(VENV) .dagster .tmp_dagster_home* .hypothesis .import_linter_cache .mypy_cache \
		.pytest_cache .ruff_cache build dist ./*.egg-info
	find distilabel_dagster examples tests -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment for every word, with the dev extra: `demo`, `test` and `lint` then never
# install over one another. It is made again only when one of the two files changes.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "Python 3.10 or newer is needed; '$(PYTHON)' is not. Name another: make PYTHON=/path/to/python3" >&2; \
		exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "'$(PYTHON)' can't make a virtual environment: its modules venv and ensurepip are missing." >&2; \
			echo "On Debian and Ubuntu: apt install python3-venv. Or name another Python: make PYTHON=/path/to/python3" >&2; \
			exit 1; }; \
		$(PYTHON) -m venv --clear $(VENV); }
	@echo "Installing into $(VENV); this takes a minute or two, and only once." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
		--constraint constraints.txt --editable '.[dev]'
	@touch $@

# What draws the plot of `make bench`; no other word needs it.
$(BENCH_INSTALLED): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
		--constraint constraints.txt --editable '.[bench]'
	@touch $@
