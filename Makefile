# Everything happens in a local environment, .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test test-all lint clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## make .venv with the package and its tools

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "maskdecay needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install ## decay the bundled teacher, prune, prove, code a photograph and report; OUT=folder
	$(BIN)/maskdecay demo --out $(OUT)

test: install ## run the test suite
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-all: install ## run the test suite and the tests marked long
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m ""

lint: install ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

clean: ## remove the environment and what the demo wrote
	rm -rf $(VENV) $(OUT) build *.egg-info .pytest_cache .ruff_cache .hypothesis
