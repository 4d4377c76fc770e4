# Everything runs in .venv, which each target makes and fills first where it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest # compiling hundreds of files in each worker and child takes longer than a minute

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test test-all lint type format bench clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|' 2>/dev/null \
	  || grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with everything that running, testing and training need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Turnout needs Python 3.11 or newer; found $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[local,metrics,javascript,otel,parquet,postgres,dev]'
	@touch $@

demo: $(STAMP) ## The whole loop on a real small model: a suite fails, a LoRA is trained, traffic moves on evidence
	$(BIN)/turnout demo $(ARGS)

serve: $(STAMP) ## Start the service on http://127.0.0.1:8600
	$(BIN)/turnout serve $(ARGS)

test: $(STAMP) ## Unit tests, then the tests of the service and those with real child processes and databases
	$(PYTEST) -n 2 --dist worksteal -m "not service and not integration and not model and not gpu" $(ARGS)
	$(PYTEST) -n 5 --dist worksteal -m "(service or integration) and not slow and not model and not gpu" $(ARGS)

test-all: test ## The same, the slow ones, and those that need the real SmolLM2 (fetched once)
	$(PYTEST) -n 2 --dist worksteal -m "slow and not gpu" $(ARGS)
	$(PYTEST) -m "model" $(ARGS)

lint: $(STAMP) type ## ruff (style, format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(STAMP) ## mypy, strict
	$(BIN)/mypy

format: $(STAMP) ## Rewrite the code in ruff's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## Figures beside peers and floors, in one go, into benchmarks/results
	$(BIN)/python -m benchmarks $(ARGS)

clean: ## Remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
