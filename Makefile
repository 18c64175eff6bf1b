# `make demo` and `make test` do all set-up themselves: they need Python 3.11-3.13, make and the package index.

PYTHON ?= $(firstword $(foreach version,3.11 3.13 3.12,$(shell command -v python$(version) >/dev/null 2>&1 && python$(version) -c 'import sys' 2>/dev/null && echo python$(version))) python3)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard setup.cfg pyproject.toml README.md LICENSE stream/*.py stream/pipelines/*.toml stream/page/* sources/*.py neurons/*.py plasticity/*.py chip/*.py chip/profiles/*.toml)

.PHONY: help browser install demo test check bench docs build clean

help:
	@echo "make demo     play a simulated camera through a learner onto the chip (sets itself up)"
	@echo "make test     run the tests against an installed build (sets itself up)"
	@echo "make check    ruff and mypy strict"
	@echo "make bench    speeds as ratios, beside the kept baseline"
	@echo "make docs     the site, into build/site, with pictures of the live page where there is a browser"
	@echo "make install  only make $(VENV), with everything this platform can have"
	@echo "make clean    remove what was made"

install: $(VENV)/.built

demo: $(VENV)/.built
	$(BIN)/hebbstream demo

# The live page is tested in a real browser where one can be had; without one those tests are skipped, and say so.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	&& apt-get update -qq && apt-get install -y -qq chromium; } >/dev/null 2>&1 || echo "no Chromium: the page is not tested"

# Files side by side on two workers: more would disturb the tests that start machines and processes of their own.
test: $(VENV)/.built browser
	$(BIN)/python -P -m pytest -n 2 --dist loadfile

check: $(VENV)/.built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.built
	$(BIN)/hebbstream bench --baseline tests/bench_baseline.json

# Strict: warnings fail.
docs: $(VENV)/.built browser
	$(BIN)/python -P docs/site/screens.py build/screens
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -P -m mkdocs build --strict
	@echo "open build/site/index.html"

build: $(VENV)/.built

# What the project needs, from setup.cfg. Extras that some platform lacks (aestream, tonic) must not stop the rest.
$(VENV)/.dependencies: setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 14) else "hebbstream wants Python 3.11-3.13, got " + sys.version.split()[0] + "; set PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip 'setuptools>=77' wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[test,check]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[docs]' || echo "the site cannot be built on this platform"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[formats]' || echo "HDF5: not on this platform"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[video]' || echo "video: not on this platform"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[camera]' || echo "camera drivers: not on this platform"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[aestream]' || echo "aestream: not on this platform"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[cluster]' || echo "Ray: not on this platform"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[datasets]' || echo "tonic: not on this platform"
	touch $@

# The build that tests and demo run: a wheel, installed. Not an editable install, so what is tested is what is shipped.
$(VENV)/.built: $(VENV)/.dependencies $(SOURCES)
	rm -rf build dist *.egg-info
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall dist/hebbstream-*.whl
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
