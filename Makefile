# make demo | test | check | format | setup
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check format setup

demo: $(VENV)/runtime  ## install and write demo.wav: 20 s of 48 kHz music from a text prompt
	$(BIN)/longplay generate "calm ambient piano with soft strings" --seconds 20 --seed 8 --output demo.wav

test: $(VENV)/dev  ## the whole test suite, a file on each core at a time
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

check: $(VENV)/dev  ## lint, format, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/dev  ## everything for development, with the commit hooks
	$(BIN)/pre-commit install

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "longplay needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "cannot make a virtual environment; on Debian or Ubuntu: sudo apt install python3-venv"; exit 1; }

$(VENV)/runtime: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e .
	@touch $@

$(VENV)/dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/runtime
