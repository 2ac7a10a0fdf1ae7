# make train    set up .venv, then train LeNet on handwritten digits (CONFIG=... for another net)
# make test     set up .venv, then every check: ruff, mypy, pytest
PYTHON ?= python3
CONFIG ?= configs/lenet_digits.yaml
ARGS ?=
BENCH_PYTHON ?=
BIN := .venv/bin

.PHONY: train test lint torture gpu-test bench fmt schema native clean

train: .venv/.train
	$(BIN)/cfgnet train $(CONFIG) $(ARGS)

test: lint
	$(BIN)/pytest -q $(ARGS)

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

torture: .venv/.dev
	$(BIN)/pytest -q -m torture $(ARGS)

gpu-test: .venv/.dev
	$(BIN)/pytest -q -m gpu $(ARGS)

bench: $(if $(BENCH_PYTHON),.venv/.dev,.venv/.bench)
	$(BIN)/python -m tests.bench $(if $(BENCH_PYTHON),--torch-python $(BENCH_PYTHON)) $(ARGS)

fmt: .venv/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

native: .venv/.train
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -e .

schema: .venv/.train
	$(BIN)/cfgnet schema > configs/schema.json

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "cfgnet needs Python: sudo apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "cfgnet needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V): make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "cfgnet needs the venv module: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.train: .venv/bin/python pyproject.toml
	$(BIN)/pip install -q --disable-pip-version-check -e '.[ui,plot]'
	@touch $@

.venv/.dev: .venv/bin/python pyproject.toml
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@ .venv/.train

.venv/.bench: .venv/bin/python pyproject.toml
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev,bench]'
	@touch $@ .venv/.dev .venv/.train

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
