# Everything happens in .venv; nothing outside this folder is touched.
#   make demo    install, then compare memories where they do not matter, and where they do (minutes)
#   make test    install, then all tests        make lint   format, rules and types
#   make docs    the pages as a site, in build/docs
#   make bench   the speed claims               make coverage  how much of memory/ and models/ is tested
#   make clean   remove what was made, except runs/
#   make test-compat    the cache for pretrained models, on the oldest transformers it supports and on the newest
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
WORKERS ?= auto
BENCHMARKS := $(wildcard benchmarks/*/[!_]*.py)

.PHONY: setup demo test test-compat coverage lint docs bench clean
.DEFAULT_GOAL := setup

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no python3 found; install Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is older than 3.11; call make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv || \
		{ echo "make: cannot create .venv; on Debian: apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/vqmem compare demo
	$(BIN)/vqmem compare recall_demo

# One thread a worker: torch would start one a core in each. Big machines gain nothing beyond eight workers. A file is
# tested by one worker, since its tests share what takes long to make; the small ones of tests/unit come last, so that no
# worker is left alone with a long one.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test: $(INSTALLED)
	$(PYTEST)

# Each release is laid over .venv, in a folder of its own that is found first; torch is not installed again. kvpress
# wants the oldest: it comes with what it imports, not with all that it lists.
KVPRESS := 'kvpress>=0.5.5' 'cachetools<6' 'fire<0.7' six termcolor

test-compat: $(INSTALLED)
	@for release in '==5.2.*' '>=5.2'; do \
		folder="$(CURDIR)/.compat/transformers$$release"; echo "== transformers$$release"; \
		$(BIN)/python -m pip install --disable-pip-version-check -q --upgrade --target "$$folder" "transformers$$release" && \
		{ [ "$$release" != '==5.2.*' ] || $(BIN)/python -m pip install --disable-pip-version-check -q --upgrade --no-deps --target "$$folder" $(KVPRESS); } && \
		PYTHONPATH="$$folder:$$PYTHONPATH" $(BIN)/python -c 'import transformers as t; print("testing", t.__version__, *t.__path__)' && \
		PYTHONPATH="$$folder:$$PYTHONPATH" $(PYTEST) tests/*/test_hf_*.py \
		|| exit 1; \
	done

# Each of the two packages must reach the share by itself.
coverage: $(INSTALLED)
	$(PYTEST) tests/unit tests/contract tests/parity \
		--cov=vqmem.memory --cov=vqmem.models --cov-report=
	$(BIN)/coverage report --skip-covered --show-missing --include 'memory/*' --fail-under 90
	$(BIN)/coverage report --skip-covered --show-missing --include 'models/*' --fail-under 90

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

docs: $(INSTALLED)
	$(BIN)/python -m sphinx -W --keep-going -c docs . build/docs
	@echo "open build/docs/docs/index.html"

bench: $(INSTALLED)
	@for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv .compat build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
