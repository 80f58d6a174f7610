# make reproduce · make test · make lab: each sets up its own .venv first. `make help` lists all.
PROFILE ?= demo
RUN     ?=
STICK   ?= stick
CORES   ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
VENV    := .venv
READY   := $(VENV)/.ready
PY      := $(VENV)/bin/python
UV      := $(shell command -v uv 2>/dev/null)
# An interpreter counts only if it starts and has the right version.
PYTHON  ?= $(shell for p in python3.12 python3.13 python3.11 python3 python; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
	&& command -v "$$p" && break; done)
NAMED   := $(if $(RUN),--run-name "$(RUN)")
export PYTHONHASHSEED := 0

.DEFAULT_GOAL := help
.PHONY: help reproduce check test test-slow torture audit lab bench publish site stick lint lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PROFILE=demo (smoke, demo, demo_full, paper)  RUN=name  CORES=$(CORES)  DRY=1"

$(READY): requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo "error: no Python 3.11, 3.12 or 3.13 found that starts:" \
	  "install one, or say where it is: make PYTHON=/path/to/python3.12"; exit 1; fi
	@if [ "$$(uname -sm)" = "Darwin x86_64" ]; then echo "error: PyTorch 2.11 has no build for Macs" \
	  "with an Intel processor: use Linux, Windows (WSL) or a Mac with Apple silicon"; exit 1; fi
	@echo "Setting up $(VENV) with $(PYTHON): on Linux a download of 2.9 GB (PyTorch brings CUDA)" \
	  "and 5.6 GB on disk, elsewhere less than 1 GB. Once; minutes depend on the network."
	@rm -rf $(VENV)
ifneq ($(UV),)
	@$(UV) venv --quiet --python "$(PYTHON)" $(VENV)
	@$(UV) pip install --quiet --python $(PY) --require-hashes --compile-bytecode -r requirements.lock
	@$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation -e .
else
	@"$(PYTHON)" -m venv $(VENV) || { echo "error: $(PYTHON) has no venv module (on Debian:" \
	  "apt install python3-venv), or install uv"; exit 1; }
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
endif
	@touch $@

reproduce: $(READY) ## every figure and table, then the comparison with the committed values
	@$(PY) -m saeutils.run all --profile "$(PROFILE)" $(NAMED) --cores "$(CORES)" $(if $(DRY),--dry-run)
	@$(if $(DRY),true,$(PY) -m saeutils.publish check --profile "$(PROFILE)" $(NAMED))

check: $(READY) ## compare headline values with figures/demo/headline.csv
	@$(PY) -m saeutils.publish check --profile "$(PROFILE)" $(NAMED)

test: $(READY) ## the tests, smoke chain included (under 12 minutes on two cores)
	@$(PY) -m pytest -q -m "not slow" -n 2 --dist loadfile

test-slow: $(READY) ## the slow tests
	@$(PY) -m pytest -q -m slow -n 2 --dist loadfile

torture: $(READY) ## kills, full disks, rivals, other worlds until stopped (KILLS=40 CHAINS=4 ONCE=1: one round)
	@$(PY) tests/torture.py --kills $(or $(KILLS),40) --chains $(or $(CHAINS),4) --cores "$(CORES)" \
	  --seed $(or $(SEED),0) --faults --worlds $(PYTHONS) $(if $(ONCE),,--forever)

audit: $(READY) ## known weaknesses of the locked packages, by pip-audit
	@$(PY) tests/audit_lock.py

lab: $(READY) ## open the notebooks in JupyterLab
	@mkdir -p $(VENV)/share/jupyter/lab/settings  # no question about news, nothing asked of the web
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}' \
	  > $(VENV)/share/jupyter/lab/settings/overrides.json
	@$(PY) -m jupyterlab --notebook-dir=. notebooks/00_tour.ipynb

bench: $(READY) ## the benchmarks, on a quiet machine (some hours; peers: see benchmarks/README)
	@cd benchmarks && for what in "bench_sae.py steps" "bench_sae.py fvu" "bench_sae.py time" \
	  bench_grid.py bench_stacked.py bfloat16.py width_and_clips.py bench_lasso.py bench_probe.py bench_extraction.py bench_scaling.py report.py; do echo "$$what"; ../$(PY) $$what || exit 1; done

publish: $(READY) ## maintainers: copy a finished demo run into figures/, notebooks/ and the README
	@$(PY) -m saeutils.publish all --profile "$(PROFILE)" $(NAMED)

site: $(READY) ## the notebooks, figures and atlas as web pages in site/
	@$(PY) -m saeutils.site --profile "$(PROFILE)" $(NAMED)

stick: $(READY) ## a folder for a USB stick: wheels, repository, results, install scripts (STICK=folder)
	@$(PY) -m saeutils.stick --target "$(STICK)" --profile "$(PROFILE)" $(NAMED) $(if $(WINDOWS),--windows)

lint: $(READY) ## ruff
	@$(PY) -m ruff check saeutils tests notebooks

lock: ## maintainers: compile requirements.lock again (needs uv)
	@uv pip compile --quiet --universal --generate-hashes --fork-strategy fewest --no-header \
	  --python-version 3.11 --extra test pyproject.toml -o requirements.lock

clean: ## remove what runs have made (keeps .venv and everything git tracks)
	@git clean -fdXq data figures && rm -rf .snakemake
