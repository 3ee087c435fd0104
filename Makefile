# Two commands do everything on a fresh machine with Python 3.11 or newer: `make train` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TASK ?= ram-mnist

.PHONY: train test check wheel clean
.DELETE_ON_ERROR:

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

train: $(INSTALLED) ## train the default agent on TASK (ram-mnist)
	$(BIN)/hardattn train $(TASK) --resume

test: $(INSTALLED) ## the whole test suite but what is marked slow
	$(BIN)/python -m pytest

check: $(INSTALLED) ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/typecheck.py

wheel: $(INSTALLED) ## build the wheel and try it outside the checkout
	PATH="$(CURDIR)/$(BIN):$$PATH" bash tools/try_wheel.sh

clean:
	rm -rf $(VENV) .typecheck build dist *.egg-info
