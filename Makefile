# Every target works from a bare machine with python3.11 and make: the first one that needs it makes .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test lint format bench chaos constraints clean

help:
	@echo "make demo    set up, train the bundled ResNet-50 (once, about a minute) and optimize it"
	@echo "make test    set up and run the tests"
	@echo "make lint    ruff, mypy --strict, import-linter"
	@echo "make bench   the benchmarks behind the README's figures"
	@echo "make chaos   real faults injected into real sessions, and what was lost"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --editable ".[dev]" --constraint constraints.txt
	touch $@

demo: $(STAMP)
	$(BIN)/infertune optimize digits-resnet50

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python -m simulations.bench

chaos: $(STAMP)
	$(BIN)/python -m simulations.chaos

# What is installed now, without this project and what only this machine needs: run after a deliberate upgrade and
# a green `make test`.
constraints: $(STAMP)
	$(BIN)/python -m pip list --format=freeze --exclude-editable | LC_ALL=C sort -f > constraints.txt

clean:
	rm -rf $(VENV) build dist *.egg-info
