# Every target works from a bare machine with python3.11 and make: the first one that needs it makes .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo scaling-demo chat-demo challenge test lint format bench chaos constraints clean debian

help:
	@echo "make demo    set up, train the bundled ResNet-50 (once, about a minute) and optimize it"
	@echo "make scaling-demo  from a week in Prometheus to a patched, watched and rolled back autoscaler"
	@echo "make chat-demo  two conversations that tune a workload and get a plan approved: by a scripted model, and by none"
	@echo "make challenge  what each technique brings on the bundled ResNet-50, step by step, with a page of it"
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

scaling-demo: $(STAMP) debian
	$(BIN)/python -m simulations.scaling_demo

chat-demo: $(STAMP) debian
	$(BIN)/python -m simulations.chat_demo
	$(BIN)/python -m simulations.chat_demo --no-model

challenge: $(STAMP) debian
	$(BIN)/infertune challenge digits-resnet50

# Two processes take whole files, so that what a file's tests share is made once; by name, so that none of the longest
# (chaos, optimize, resume) comes last.
test: $(STAMP) debian
	$(BIN)/python -m pytest -rs --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Programs that the tests run for real. Without the rights to install them the tests that need them are skipped, and
# say so; under CI=true they fail.
debian:
	@command -v prometheus >/dev/null && command -v promtool >/dev/null && command -v patch >/dev/null && \
	command -v chromium >/dev/null || \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  { apt-get install -y -qq prometheus patch chromium >/dev/null 2>&1 || \
	    { apt-get update -qq && apt-get install -y -qq prometheus patch chromium; } >/dev/null 2>&1; }; } || \
	echo "not everything is installed, or can be installed here: apt-get install prometheus patch chromium" >&2

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
