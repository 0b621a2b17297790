# Every target starts from a bare clone with Python and a C++ compiler; `make help` lists them.
#
# One environment (VENV) serves them all. graftsdk is installed there as a wheel, built from an sdist of this tree,
# and is built and installed again only when a source changed: what is tested is what a user installs.

PYTHON ?= python3
VENV ?= .venv
BUILD ?= build
DEVICE ?= cpu
GPU_PYTHON ?= python3

PY := $(VENV)/bin/python
# The working directory never shadows the installed package. A script finds the modules beside it all the same.
export PYTHONSAFEPATH := 1
SCRIPT := PYTHONSAFEPATH= $(PY)

# Folders are listed too: their times change when a file is removed.
SOURCES := $(shell find graftsdk export cpp_ext \( -name __pycache__ -o -name '*.so' \) -prune -o -print) \
	setup.py CMakeLists.txt pyproject.toml LICENSE README.md CHANGELOG.md SECURITY.md CITATION.cff MANIFEST.in

TOOLS := $(VENV)/.tools
WHEEL := $(BUILD)/wheel/.built
INSTALLED := $(VENV)/.installed

SANITIZERS := address,undefined,float-cast-overflow thread

.PHONY: demo demo-plan docs test ray-test gpu-test lint bench gpu-bench experiments segmenter wheel fuzz cpp-test sanitize install clean help

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST) | awk -F': ' '{ printf "  make %-11s %s\n", $$1, $$2 }'

demo: $(INSTALLED)  ## people on a drawn scene with their attributes, by examples/demo.plan; saves out/prediction.png
	@mkdir -p out
	$(SCRIPT) examples/predict.py out

test: $(INSTALLED)  ## run the tests on the installed wheel
	@# Compiled engines of earlier runs and of the user would hide what a first run meets.
	@rm -rf $(BUILD)/cache && mkdir -p $(BUILD)/cache
	@# Two processes, a file in one of them: half the time on two cores. Torch with two threads in each would wait.
	OMP_NUM_THREADS=1 XDG_CACHE_HOME=$(abspath $(BUILD))/cache $(PY) -m pytest tests -n 2 --dist loadfile

ray-test: $(INSTALLED)  ## the tests that start Ray on this machine, a minute
	$(PY) -m pytest tests/offline tests/serving -m cluster

lint: $(INSTALLED)  ## ruff, mypy --strict, the layers, clang-format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	find cpp_ext -name '*.?pp' -exec $(VENV)/bin/clang-format --dry-run --Werror {} +
	@# From an empty folder, so that the installed package is read and not the tree.
	@mkdir -p $(BUILD)/lint
	cd $(BUILD)/lint && $(abspath $(VENV))/bin/mypy --config-file $(CURDIR)/pyproject.toml -p graftsdk
	cd $(BUILD)/lint && $(abspath $(VENV))/bin/lint-imports --no-logo --cache-dir cache $(CURDIR)/pyproject.toml

docs: $(INSTALLED)  ## the documentation as a site, in build/site; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet --site-dir $(abspath $(BUILD))/site

bench: $(INSTALLED)  ## measure against the alternatives, in one interleaved run
	$(SCRIPT) benchmarks/crop.py
	$(SCRIPT) benchmarks/decode.py
	$(SCRIPT) benchmarks/run.py
	$(SCRIPT) benchmarks/int8.py

demo-plan: $(INSTALLED)  ## train examples/demo.plan anew on drawn scenes; takes about 15 minutes
	@rm -rf $(BUILD)/demo
	PATH=$(abspath $(VENV))/bin:$$PATH examples/demo_plan.sh $(BUILD)/demo
	cp $(BUILD)/demo/demo.plan examples/demo.plan

experiments: $(INSTALLED)  ## the figures of docs/results.md; PETA=its folder OBJECTS=CIFAR-10/train, three hours
	$(SCRIPT) experiments/peta.py $(PETA) $(BUILD)/peta --objects $(OBJECTS)
	$(SCRIPT) experiments/tables.py $(BUILD)/peta -o $(BUILD)/tables
	$(SCRIPT) experiments/occlusion.py -o $(BUILD)/occlusion --train-scenes 2400 --test-scenes 2600 --steps 1500 --seeds 0

segmenter: $(INSTALLED)  ## train the demo segmenter anew; DEVICE=cuda takes minutes, two cores take four hours
	@rm -rf $(BUILD)/scenes && mkdir -p $(BUILD)/scenes
	$(VENV)/bin/graftsdk scenes -o $(BUILD)/scenes/train --count 14000 --seed 1 --workers $$(nproc)
	$(VENV)/bin/graftsdk scenes -o $(BUILD)/scenes/val --count 200 --seed 2
	$(VENV)/bin/graftsdk train segmenter --data $(BUILD)/scenes/train --val $(BUILD)/scenes/val --device $(DEVICE) \
		--size 288 512 --scales 45 90 140 190 250 --no-mixed-sizes --copy-paste 0.1 --batch 32 \
		--learning-rate 0.002 --steps 7371 --eval-every 2 --workers $$(nproc) \
		-o $(BUILD)/demo.safetensors --plot $(BUILD)/demo.png

# Both run from the checkout as it is, with the packages that GPU_PYTHON has: a GPU machine may have no network.
gpu-test:  ## tests that need a GPU; GPU_PYTHON=python3 has the packages, REQUIRE_GPU=1, RECORD=1
	PYTHONSAFEPATH=1 $(GPU_PYTHON) tests/gpu/prepare.py test $(if $(REQUIRE_GPU),--require-gpu) $(if $(RECORD),--record)

gpu-bench:  ## benchmark on a GPU; RECORD=1 puts it into docs/gpu-results.md, ARGS="--rounds 30"
	PYTHONSAFEPATH=1 $(GPU_PYTHON) tests/gpu/prepare.py bench $(if $(REQUIRE_GPU),--require-gpu) \
		$(if $(RECORD),--record) $(if $(DRY),--dry) $(ARGS)

wheel: $(WHEEL) $(INSTALLED)  ## a manylinux wheel in dist/, checked
	@rm -rf dist && mkdir -p dist
	PATH=$(abspath $(VENV))/bin:$$PATH $(PY) -m auditwheel repair --wheel-dir dist $(BUILD)/wheel/graftsdk-*.whl
	$(SCRIPT) tests/packaging/check_wheel.py dist/graftsdk-*.whl

fuzz: $(INSTALLED)  ## feed hostile bytes to the readers for a minute
	$(SCRIPT) tests/fuzz/run.py --seconds 60

cpp-test: $(INSTALLED)  ## build and run the tests of the C++ core
	$(VENV)/bin/cmake -S . -B $(BUILD)/cpp -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV))/bin/ninja \
		-DGRAFTSDK_CPP_TESTS=ON -DPython_EXECUTABLE=$(abspath $(PY)) \
		-Dpybind11_DIR=$$($(PY) -m pybind11 --cmakedir)
	$(VENV)/bin/cmake --build $(BUILD)/cpp
	$(VENV)/bin/ctest --test-dir $(BUILD)/cpp --output-on-failure

sanitize: $(INSTALLED)  ## the tests of the C++ core under ASan with UBSan, then under TSan
	set -e; for kind in $(SANITIZERS); do \
		folder=$(BUILD)/sanitize-$${kind%%,*}; \
		$(VENV)/bin/cmake -S . -B $$folder -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV))/bin/ninja \
			-DCMAKE_BUILD_TYPE=RelWithDebInfo -DGRAFTSDK_MODULE=OFF -DGRAFTSDK_CPP_TESTS=ON \
			-DGRAFTSDK_SANITIZE=$$kind; \
		$(VENV)/bin/cmake --build $$folder; \
		ASAN_OPTIONS=detect_leaks=1 $(VENV)/bin/ctest --test-dir $$folder --output-on-failure; \
	done

install: $(INSTALLED)  ## the environment alone

clean:  ## remove the environment and all that was built
	rm -rf $(VENV) $(BUILD) dist out graftsdk.egg-info

$(TOOLS):
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip build
	@touch $@

$(WHEEL): $(SOURCES) | $(TOOLS)
	@rm -rf $(BUILD)/wheel && mkdir -p $(BUILD)
	$(PY) -m build --outdir $(BUILD)/wheel . >$(BUILD)/wheel.log 2>&1 || { cat $(BUILD)/wheel.log; exit 1; }
	@touch $@

# First the wheel itself, since pip takes the same version for the same package; then what it needs.
$(INSTALLED): $(WHEEL)
	$(PY) -m pip install --quiet --force-reinstall --no-deps $(BUILD)/wheel/graftsdk-*.whl
	$(PY) -m pip install --quiet "$$(echo $(BUILD)/wheel/graftsdk-*.whl)[dev]"
	@touch $@
