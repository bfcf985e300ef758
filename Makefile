# `make demo` and `make test` do all the set-up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo check test test-all bench gpu

setup: $(READY)

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[cpu,train,demo,hdf5,onnx,openvino,ray,dev]'
	touch $(READY)

demo: setup
	$(BIN)/beholder demo

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two processes of one thread each: on a busy machine, threads that wait for each other cost far more.
test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -m 'alone and not slow'
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m 'not slow and not alone'

test-all: check
	OMP_NUM_THREADS=1 $(BIN)/pytest

# The tests of devices on CUDA, and what it does in a second; says so where there is none.
gpu: setup
	$(BIN)/python scripts/on_gpu.py

bench: setup
	for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done
