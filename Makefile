# Everything one does with a checkout. Needs make (GNU, 3.81 or newer), a POSIX shell and Python >= 3.11 with venv.
# `make` alone lists the targets. PYTHON=... chooses the Python; uv is used where it is found, else venv and pip.

VENV = .venv
BIN = $(VENV)/bin
MAIN_JOB = examples/housekeeping.py
PYTHONS = 3.11 3.12 3.13 3.14 3.15
PYTHON ?=
TESTS = not slow
# Many tests wait for processes: one worker more than there are cores.
WORKERS = $(shell expr $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1) + 1)
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: FORCE help run test test-full test-slow test-uvloop test-pythons lint format bench docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/.runtime ## run the main job until Ctrl-C
	@exec $(BIN)/tickwork run $(MAIN_JOB)

test: $(VENV)/.test ## the tests without the slow ones: one Python, one loop
	$(PYTEST) -m "$(TESTS)"

test-full: $(VENV)/.dev ## all tests, then again on uvloop and on the other Pythons
	@$(MAKE) --no-print-directory -k test-slow test-uvloop test-pythons

lint: $(VENV)/.dev ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" PYRIGHT_PYTHON_IGNORE_WARNINGS=1 pyright --verifytypes tickwork --ignoreexternal
	$(BIN)/lint-imports

format: $(VENV)/.dev ## let ruff sort the imports and lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench ## the benchmarks, as tables
	$(BIN)/python bench/inproc.py
	$(BIN)/python bench/import_time.py
	$(BIN)/python bench/cron.py
	$(BIN)/python bench/dst.py
	$(BIN)/python bench/cases.py
	$(BIN)/python bench/year.py
	$(BIN)/python bench/scale.py
	$(BIN)/python bench/watchdog.py
	$(BIN)/python bench/kill.py
	$(BIN)/python bench/kill_postgres.py
	$(BIN)/python bench/apart.py
	$(BIN)/python bench/durable.py
	$(BIN)/python bench/offload.py
	$(BIN)/python bench/offload_bytes.py

ifneq ($(wildcard mkdocs.yml),)
docs: $(VENV)/.docs ## build the documentation into site/
	$(BIN)/zensical build --clean --strict
endif

clean: ## remove all that make and the tools have made
	rm -rf $(VENV) .venvs build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the parts of test-full, each of which also runs alone; test-wine, which is none of them ---

test-slow: $(VENV)/.dev
	TICKWORK_TEST_LOOP=asyncio $(PYTEST)

test-uvloop: $(VENV)/.dev
	@if $(BIN)/python -c 'import uvloop' 2>/dev/null; then \
	  echo 'TICKWORK_TEST_LOOP=uvloop $(PYTEST) -m "not slow"'; \
	  TICKWORK_TEST_LOOP=uvloop $(PYTEST) -m "not slow"; \
	elif [ -n "$$CI" ]; then echo 'uvloop is not installed: a failure in CI' >&2; exit 1; \
	else echo 'uvloop is not installed: not tested'; fi

test-wine: $(VENV)/.test
	.ci/wine
	TICKWORK_TEST_WINE=1 $(BIN)/python -m pytest -m wine tests/system

test-pythons: $(VENV)/.made
	@$(MAKE) --no-print-directory -k $(addprefix test-,$(filter-out $(shell $(BIN)/python -c $(print-version) 2>/dev/null),$(PYTHONS)))

test-3.%: FORCE
	@$(find-version); find_version 3.$*; \
	if [ -z "$$python" ]; then echo 'Python 3.$* is not here: not tested'; exit 0; fi; \
	$(MAKE) --no-print-directory VENV=.venvs/3.$* PYTHON="$$python" TESTS='not slow and not one_python' test

# --- environments: a stamp says what is installed, and pip is not called while it is newer than pyproject.toml ---

$(VENV)/.runtime: $(VENV)/.made pyproject.toml
	@echo 'Installing tickwork into $(VENV)'
	@$(install) -e '.[cli]'
	@touch $@

$(VENV)/.bench: $(VENV)/.made pyproject.toml
	@echo 'Installing tickwork and what its benchmarks need into $(VENV)'
	@$(install) -e '.[cli,postgres]' || $(install) -e '.[cli]'
	@touch $(VENV)/.runtime $@

$(VENV)/.test: $(VENV)/.made pyproject.toml
	@echo 'Installing tickwork and what its tests need into $(VENV)'
	@$(install) -e '.[$(if $(CI),all,cli)]' --group test
	@touch $(VENV)/.runtime $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	@echo 'Installing tickwork, its extras and all tools into $(VENV)'
	@$(install) -e '.[all]' --group dev || { \
	  [ -z "$$CI" ] && echo 'Not every extra can be installed here: going on without' && \
	  $(install) -e '.[cli]' --group dev; }
	@touch $(VENV)/.runtime $(VENV)/.test $@

$(VENV)/.docs: $(VENV)/.made pyproject.toml
	@$(install) -e '.[all]' --group docs
	@touch $@

# A virtual environment that works is kept, unless PYTHON= asks for another version.
$(VENV)/.made:
	@$(find-python); \
	if $(BIN)/python -c 'import $(venv-needs); sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	  { [ -z '$(PYTHON)' ] || [ "$$($(BIN)/python -VV)" = "$$('$(PYTHON)' -VV)" ]; }; then \
	  [ -e $@ ] || { $(prepare-venv); touch $@; }; \
	else \
	  find_python && echo "Making $(VENV) with $$python" && rm -rf $(VENV) && $(make-venv) && $(prepare-venv) && touch $@; \
	fi

ifneq ($(shell test -x $(BIN)/python && echo alive)$(PYTHON),alive)
$(VENV)/.made: FORCE
endif

print-version = 'import sys; print("%d.%d" % sys.version_info[:2])'

ifneq ($(shell uv pip install --help 2>/dev/null | grep -e --group),)
install = uv pip install --quiet --python $(BIN)/python
make-venv = uv venv --quiet --python "$$python" $(VENV)
prepare-venv = :
venv-modules = venv
venv-needs = sys
managed-python = $$(uv python find --no-project --no-python-downloads '>=3.11' 2>/dev/null)
else
install = $(BIN)/python -m pip install --quiet --disable-pip-version-check
make-venv = "$$python" -m venv $(VENV)
prepare-venv = $(install) --upgrade 'pip>=25.1'
venv-modules = venv, ensurepip
venv-needs = sys, pip
endif

# Shell functions. Both look for a Python that starts (a name on PATH need not) and can make a virtual environment.

# find_python sets $python to the first that is new enough, or says what to install.
define find-python
find_python() { \
  incomplete=; \
  for python in $(or $(PYTHON),python3 $(addprefix python,3.13 3.12 3.11 3.14 3.15) $(managed-python)); do \
    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
    "$$python" -c 'import $(venv-modules)' 2>/dev/null && return 0; \
    incomplete="$${incomplete:-$$python}"; \
  done; \
  { if [ -n "$$incomplete" ]; then echo "$$incomplete comes without venv. Install it:"; \
    else echo "No Python >= 3.11 was found$(if $(PYTHON), as PYTHON=$(PYTHON)). Install one:"; fi; \
    package="$${incomplete:-python3}"; \
    case "$$package" in */*) package="python$$("$$package" -c $(print-version))";; esac; \
    if [ "$$(uname -s)" = Darwin ]; then echo '  brew install python'; \
    elif [ -n "$$incomplete" ] && command -v apt-get >/dev/null; then echo "  sudo apt-get install $$package-venv"; \
    elif command -v apt-get >/dev/null; then echo '  sudo apt-get install python3 python3-venv'; \
    else echo '  Python >= 3.11 with the modules venv and ensurepip, from the packages of this system'; fi; \
    echo 'or name another one: make PYTHON=/path/to/python3 ...'; } >&2; \
  exit 2; \
}
endef

# find_version 3.X sets $python to a Python of that version, from PATH, uv or pyenv, or to nothing.
define find-version
find_version() { \
  for python in "python$$1" "$$(uv python find --no-project --no-python-downloads "$$1" 2>/dev/null)" \
    "$${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$1".*/bin/python; do \
    [ "$$("$$python" -c 'import $(venv-modules), sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$$1" ] && return 0; \
  done; \
  python=; \
}
endef
