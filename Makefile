# SPDX-License-Identifier: Apache-2.0
# Every target sets up what it needs in .venv; a second call is quick.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do $$p --version >/dev/null 2>&1 && echo $$p && break; done)
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.setup-done
PIP := $(PY) -m pip -qq --disable-pip-version-check install -c constraints.txt

# TORCH=cpu (or cu130, cu126, ...) takes torch from that index of PyTorch's, in the place of another that is there, and
# later calls keep to it. Without it pip takes the registry's, which brings gigabytes of CUDA on Linux, or this machine's.
TORCH_BEFORE := $(shell cat $(STAMP) 2>/dev/null)
TORCH ?= $(TORCH_BEFORE)
TORCH_INDEX ?= https://download.pytorch.org/whl/$(TORCH)
ifeq ($(TORCH),)
INSTALL_TORCH = $(PIP) torch
else
# its dependencies come with the other packages: PyTorch's indexes have few versions of them
INSTALL_TORCH = $(PIP) --index-url $(TORCH_INDEX) --no-deps $(if $(filter-out $(TORCH_BEFORE),$(TORCH)),--force-reinstall) torch torchvision
ifneq ($(TORCH),$(TORCH_BEFORE))
.PHONY: $(STAMP)
endif
endif

# A step of the set-up: its name, a dot every five seconds, how long it took.
define step
@begin=$$(date +%s); printf '  %s ' '$(1)'; \
	{ while sleep 5 >/dev/null 2>&1; do printf .; done & } 2>/dev/null; dots=$$!; disown $$dots; \
	trap 'kill $$dots 2>/dev/null || true' EXIT; \
	$(2); printf ' %s s\n' "$$(( $$(date +%s) - begin ))"
endef

.PHONY: help setup peers run test lint types bench gpu-test gpu-bench tables results ablation fuzz golden clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt $(shell find potr/native -name "*.cpp" -o -name "*.h" -o -name CMakeLists.txt)
	@echo "set-up, in $(VENV): a few minutes the first time"
	$(call step,virtual environment,test -x $(PY) || $(PYTHON) -m venv $(VENV); $(PIP) --upgrade pip)
	$(call step,torch$(if $(TORCH), of $(TORCH_INDEX)),$(INSTALL_TORCH))
	$(call step,build tools,$(PIP) scikit-build-core nanobind cmake ninja)
	$(call step,native build and the other packages,$(PIP) --no-build-isolation --editable '.[dev]')
# where the registry has no weights, LPIPS is null with the reason
	$(call step,LPIPS weights,$(PY) -m potr.evaluate.weights || true)
	@$(if $(TORCH),echo $(TORCH) >,touch) $@

setup: $(STAMP) ## create .venv with everything needed; TORCH=cpu: torch without CUDA

peers: setup ## node and splat-transform, for codec=sog, compressed_ply and decimate_spz (400 MB)
	@$(PY) -m potr.experiment.peers.install

run: setup ## compress, decode, render and measure the built-in scene
	@$(PY) -m potr.run

lint: setup ## ruff: style and formatting
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

types: setup ## mypy, strict
	@$(PY) -m mypy

test: lint types ## what CI runs: lint, types, every test
	@$(PY) -m pytest -n 2 -q

bench: setup ## rasteriser benchmark, minutes (experiments/ has those of scenes and scaling)
	@$(PY) experiments/bench_rasterizer.py

# On a machine with a GPU, which may have no network and no venv: both install nothing. Plugins of other people's packages
# stay out, and warnings of other versions are shown instead of raised. Logs and tables also go to OUT where that is set.
GPU_PYTHON ?= python3
GPU_PATH = PYTHONPATH="build/gpu/site:.$${PYTHONPATH:+:$$PYTHONPATH}"

gpu-test: ## on a machine with a GPU: the tests marked gpu (GPU_PYTHON=python3 with torch, cuda-core, pytest)
	@$(GPU_PYTHON) experiments/gpu_site.py
	@$(GPU_PATH) POTR_GPU=required PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 $(GPU_PYTHON) -m pytest -m gpu -W default \
		-o "pythonpath=build/gpu/site ." $(GPU_PYTEST) $$(cat build/gpu/tests) 2>&1 | tee "$${OUT:-build/gpu}/gpu-test.log"

gpu-bench: ## on a machine with a GPU: speed and memory of the cuda backend, to build/gpu (or OUT)
	@$(GPU_PYTHON) experiments/gpu_site.py
	@$(GPU_PATH) $(GPU_PYTHON) experiments/bench_rasterizer.py --backend cuda --to "$${OUT:-build/gpu}" $(GPU_BENCH)

tables: setup ## tables and figures of all experiments from the runs under outputs/
	@$(PY) experiments/tables.py

SCENES ?= $(patsubst %/,%,$(dir $(wildcard ../shared/scenes/*/point_cloud.ply)))
comma := ,
space := $(subst ,, )
RESULTS_WITH ?= evaluate.lpips=none launcher=joblib

results: setup ## every codec on the folders SCENES="..."; tables, figures and a page under outputs/results (hours)
	@test -n "$(SCENES)" || { echo 'no scenes: make results SCENES="DIR DIR2"'; exit 2; }
	@$(PY) -m potr.run experiment=peers dataset=folder "dataset.path=$(subst $(space),$(comma),$(strip $(SCENES)))" \
		"outputs=outputs/results" $(RESULTS_WITH) || test $$? = 2  # with holes the tables are written all the same
	@$(PY) experiments/tables.py outputs/results
	@$(VENV)/bin/potr report outputs/results

ablation: setup ## codec=paper to codec=default on the folders SCENES="..."; into docs/rate_distortion.md (hours)
	@test -n "$(SCENES)" || { echo 'no scenes: make ablation SCENES="DIR DIR2"'; exit 2; }
	@$(PY) -m potr.run experiment=ablation dataset=folder "dataset.path=$(subst $(space),$(comma),$(strip $(SCENES)))" \
		"outputs=outputs/results" $(RESULTS_WITH) || test $$? = 2  # with holes the tables are written all the same
	@$(PY) experiments/rate_distortion.py outputs/results

fuzz: setup ## fuzz the native decoder under ASan and UBSan for a minute
	@$(PY) tests/format/run_fuzz.py

golden: setup ## regenerate the golden bitstreams and show what changed
	@$(PY) tests/golden/regenerate.py && git --no-pager diff --stat tests/golden

clean: ## remove the virtual environment and build products (outputs/ stays)
	@rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache
