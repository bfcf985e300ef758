# `make demo` and `make test` do all the set-up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo starter check test test-all test-lowest wheel docs bench gpu

setup: $(READY)

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[cpu,train,demo,hdf5,onnx,openvino,ray,dev]'
	touch $(READY)

demo: setup
	$(BIN)/beholder demo

# The judge and the backbone that are shipped, made again from an empty cache; docs/starter.md.
starter: setup
	OMP_NUM_THREADS=2 $(BIN)/python starter/train.py --ship

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two processes of one thread each: on a busy machine, threads that wait for each other cost far more.
test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -m 'alone and not slow' $$(grep -rl 'mark\.alone' tests)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m 'not slow and not alone'

test-all: check
	OMP_NUM_THREADS=1 $(BIN)/pytest

# The light install with the lowest versions that pyproject.toml allows: what of it needs no torch.
LOWEST := .venv-lowest
test-lowest:
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(PYTHON) scripts/lowest_versions.py cpu > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/pip install --quiet -r $(LOWEST)/lowest.txt 'pytest>=8.3' 'hypothesis>=6.120' httpx
	PYTHONPATH=src $(LOWEST)/bin/python -m pytest -m 'not slow and not alone and not browser' \
		--ignore=tests/data/test_background.py --ignore-glob='*augment*' \
		tests/data tests/metrics tests/serve tests/report

# The wheel and the source distribution, and the wheel tried in clean environments.
wheel:
	$(PYTHON) -m venv .venv-build
	.venv-build/bin/pip install --quiet build
	rm -rf dist
	.venv-build/bin/python -m build --outdir dist .
	$(PYTHON) scripts/try_wheel.py dist/*.whl

# The site, in site/; a broken link is an error.
docs:
	test -x .venv-docs/bin/mkdocs || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet mkdocs-material 'mkdocstrings[python]'
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

# The tests of devices on CUDA, and what it does in a second; says so where there is none.
gpu: setup
	$(BIN)/python scripts/on_gpu.py

bench: setup
	for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done
