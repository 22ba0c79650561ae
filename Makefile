# demo: screen the sample picture.  test: the test suite.  slow: its long tests.  check: lint, types, tests.  docs: the site.
# env: what test needs, and nothing run.  lint: lint and types alone.
# bench: the benchmarks.  bench-page: writes their results into docs/speed.md.  soak: what takes hours.
# Each makes its own virtual environment in .venv and installs what it needs there; nothing else is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# In two processes. A file stays in one, as much is made once for all its tests; the short files are the last.
TESTS := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo env test slow lint check docs bench bench-page soak clean

demo: $(VENV)/core
	rm -rf demo-out
	$(BIN)/funduscope screen examples --out demo-out --overlays --report
	@echo "Pictures with contours: demo-out/overlays   The report: demo-out/report.html"

env: $(VENV)/test

test: env
	$(TESTS)

slow: env
	$(TESTS) -m slow

lint: env links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint
	$(TESTS)

docs: $(VENV)/docs links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "The pages: site/index.html   With search: $(BIN)/python -m http.server --directory site"

bench: $(VENV)/test
	$(BIN)/python -m pytest benchmarks --ignore benchmarks/soak --benchmark-only --benchmark-autosave

bench-page: $(VENV)/test
	$(BIN)/python benchmarks/page.py

soak: $(VENV)/test
	$(PIP) -c constraints.txt -e '.[ray]'
	$(BIN)/python -m pytest benchmarks/soak -s

# The rooms stand at the top level and are installed as funduscope.*; the type checker reads them through links.
.PHONY: links
links:
	rm -rf .links && mkdir -p .links/funduscope
	cd .links/funduscope && ln -s ../../src/funduscope/* ../../engine ../../postprocess ../../export ../../training ../../examples .

$(VENV)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	touch $@

# OpenVINO where there is a wheel of it: on most processors of today it is the fastest
$(VENV)/core: $(VENV)/python pyproject.toml constraints.txt
	$(PIP) -c constraints.txt -e '.[openvino]' || $(PIP) -c constraints.txt -e .
	touch $@

$(VENV)/test: $(VENV)/python pyproject.toml constraints.txt
	$(PIP) -c constraints.txt -e '.[test]'
	touch $@ $(VENV)/core

$(VENV)/docs: $(VENV)/python pyproject.toml constraints.txt
	$(PIP) -c constraints.txt -e '.[docs]'
	touch $@ $(VENV)/core

clean:
	rm -rf $(VENV) .links site build dist *.egg-info demo-out
