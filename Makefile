# Every command of the project over one environment, .venv; `make help` lists them.
# The environment is made once and made again only when requirements.lock or pyproject.toml changes.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo up test check bench accuracy soak lock clean

PYTHON ?= $(or $(shell command -v python3.11 2>/dev/null),python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
TESTED_FAST := $(wildcard quant_platform_tests/unit)
# A worker takes a whole file, whose tests share fixtures, in the order in which conftest.py puts the files.
TWO_WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

# The dbt manifest costs seconds to build and milliseconds to load, so it is built here and not when assets load.
DBT_SOURCES := $(if $(wildcard dbt_project/dbt_project.yml),$(shell find dbt_project -type f \
	\( -name '*.sql' -o -name '*.yml' -o -name '*.md' -o -name '*.csv' \) \
	-not -path '*/target/*' -not -path '*/logs/*' -not -path '*/dbt_packages/*'))
MANIFEST := $(if $(DBT_SOURCES),dbt_project/target/manifest.json)

# Nothing that we start reports to anybody.
export DO_NOT_TRACK := 1
export DAGSTER_DISABLE_TELEMETRY := 1
export DBT_SEND_ANONYMOUS_USAGE_STATS := false
export GX_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export STREAMLIT_BROWSER_GATHER_USAGE_STATS := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# An environment that happens to be active has no say here; and each process would compile all of the code again.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(INSTALLED) $(MANIFEST) ## make .venv from requirements.lock, and the dbt manifest

demo: setup ## simulate a week of ticks and take it through every asset, into ./var
	$(BIN)/qp demo

up: setup ## the UI, its daemon and a collector on a replayed market, on 127.0.0.1 until Ctrl-C
	$(BIN)/qp up --replay

test: setup ## run every test but the long forms (at most 14 minutes)
	$(BIN)/pytest $(TWO_WORKERS) -m "not soak"

# Frames of unit tests are small: threads cost more than they bring. `make test` runs the same tests with all of them.
check: setup ## format, lint, types, import rules, unit tests (under a minute when warm)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	POLARS_MAX_THREADS=1 $(BIN)/pytest $(TWO_WORKERS) -q -m "not soak" $(TESTED_FAST)

bench: setup ## measure against the peers and write benchmarks/RESULTS.md
	$(BIN)/python benchmarks/run.py

accuracy: setup ## hold the estimators against recorded days of known truth and write docs/accuracy.md
	$(BIN)/python benchmarks/accuracy.py

soak: setup ## run the long faults and loads
	$(BIN)/pytest -m soak --timeout 14400

lock: $(BIN)/uv ## resolve requirements.lock again from pyproject.toml, keeping the versions that still fit
	$(BIN)/uv pip compile pyproject.toml --universal --group dev --generate-hashes --no-annotate -o requirements.lock

clean: ## remove caches and built files; .venv and var stay
	rm -rf build dist logs dbt_project/target dbt_project/logs .coverage .hypothesis \
		.import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find quant_platform quant_platform_tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "Python 3.11 is needed and $(PYTHON) is another one: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv

$(INSTALLED): requirements.lock pyproject.toml | $(BIN)/uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

dbt_project/target/manifest.json: $(DBT_SOURCES) $(INSTALLED)
	$(BIN)/dbt --quiet parse --project-dir dbt_project --profiles-dir dbt_project
	@touch $@
