# `make run` shows the library at work, `make test` tests it; both set up .venv first.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
NETWORKS ?= 2000
TRAININGS ?= 60
TORCH ?= torch==2.13.0
# CUDA kernels take minutes to compile: by default only where there is a GPU (make cuda: anywhere with nvcc).
CUDA ?= $(if $(shell command -v nvidia-smi),AUTO,OFF)
CUDA_ARCHITECTURES ?= 80;90;100;120
# Has the torch that wheels are built against, the oldest that they are to run with.
WHEEL_PYTHON ?= $(BIN)/python

BIN := $(VENV)/bin
BUILD := build/dev
DEPS := $(VENV)/.deps-stamp
# One thread each: the test processes share the processors among themselves.
TEST_ENV := OMP_NUM_THREADS=1 MPLBACKEND=Agg
PYTEST := $(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS)
CXX_SOURCES = $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu')

.PHONY: help setup run test test-slow bench peers docs notebooks lint format ext cuda lanes gpu-check wheels clean
.DEFAULT_GOAL := help

help:
	@echo 'make run        distances between $(NETWORKS) networks, then a search that trains $(TRAININGS), into runs/'
	@echo 'make test       the test suite (make test-slow: all of it)'
	@echo 'make bench      solver benchmarks beside other libraries, into runs/bench'
	@echo 'make peers      the tests of POT, GPyTorch, BoTorch and Optuna, run on our code; POT=, BOTORCH=: clones to read'
	@echo 'make docs       the site, into build/site: guide, reference, gallery; DOCS=-Dplot_gallery=0 draws no pictures'
	@echo 'make notebooks  four tutorials as notebooks, into build/notebooks'
	@echo 'make lint       ruff, mypy and clang-format; make format applies the formatters'
	@echo 'make ext        compile the core into hotnas_torch/_C.so (incremental)'
	@echo 'make cuda       the same with CUDA kernels; needs nvcc, no GPU'
	@echo 'make gpu-check  on a machine with a GPU: CUDA tests, compute-sanitizer, benchmark, into runs/gpu'
	@echo 'make wheels     a wheel for Linux and the source distribution, into dist/; CUDA=ON: with CUDA kernels, into dist/cuda'
	@echo 'make setup      only .venv and the compiled core; PYTHON=python3.12 chooses the interpreter'

run: setup
	mkdir -p runs
	$(BIN)/hotnas gram --space nasbench201 --sample $(NETWORKS) --seed 0 --out runs/gram.npz --overwrite
	$(BIN)/hotnas search --evaluations $(TRAININGS) --workers $(WORKERS) --batch 4 --out runs/digits.sqlite --resume

# TESTS="tests/ot/operators tests/ot" runs a part.
test: setup lanes
	$(PYTEST) $(TESTS)

# The last -m counts: an empty one selects everything.
test-slow: setup lanes
	$(PYTEST) -m ''

gpu-check: setup cuda
	$(TEST_ENV) $(BIN)/python -m benchmarks gpu_check --check --output runs/gpu

bench: setup
	$(BIN)/python -m benchmarks --output runs/bench

# Exits with 1 on a failure without a known reason (benchmarks/peers/known.toml). PEERS="POT optuna" runs some.
peers: setup
	$(BIN)/python -m benchmarks peers --check --output benchmarks/results/peers \
	  $(if $(PEERS),--libraries $(PEERS)) $(if $(POT),--pot $(POT)) $(if $(BOTORCH),--botorch $(BOTORCH))

# A warning is an error: a name that is not there, a link to nowhere. Scripts of the gallery run when they have changed.
docs: setup
	$(TEST_ENV) $(BIN)/sphinx-build -b html -W --keep-going -q $(DOCS) docs build/site
	@echo 'build/site/index.html'

notebooks: $(DEPS)
	$(BIN)/python -m tools.notebooks

lint: $(DEPS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)

format: $(DEPS)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

setup: $(DEPS) ext

wheels: $(DEPS)
	$(BIN)/python -m tools.wheels --python $(WHEEL_PYTHON) $(if $(filter ON,$(CUDA)),--cuda)

# --- environment ------------------------------------------------------------------------------------

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, got " + sys.version)'
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
	  echo '$(PYTHON) cannot make environments (on Debian and Ubuntu: apt install python3-venv)' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch first, and by our own script: the dependencies of the project then find it there.
$(DEPS): pyproject.toml tools/install_torch.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=24'
	$(BIN)/python tools/install_torch.py '$(TORCH)'
	HOTNAS_NO_EXT=1 $(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# --- compiled core ----------------------------------------------------------------------------------
# Always asked, as ninja knows best what has changed; a second with nothing to do. The library is replaced in
# one step, as programs may be loading it.

ifeq ($(HOTNAS_NO_EXT),1)
ext lanes: $(DEPS)
	@echo 'HOTNAS_NO_EXT=1: the compiled core is not built'
else ifeq ($(shell command -v $(CXX)),)
ext lanes: $(DEPS)
	@echo 'no C++ compiler ($(CXX)) on the path: hotnas_torch will run without its compiled core'
	@test -z '$(HOTNAS_REQUIRE_EXT)'
else
ext: $(DEPS) $(BUILD)/build.ninja
	@$(BIN)/cmake --build $(BUILD) --target _C
	@$(BIN)/cmake --install $(BUILD) --prefix $(BUILD)/install --component hotnas_torch > $(BUILD)/install.log
	@cp $(BUILD)/install/hotnas_torch/_no_cuda.txt hotnas_torch/_no_cuda.txt
	@cmp -s $(BUILD)/install/hotnas_torch/_C.so hotnas_torch/_C.so || { \
	  cp $(BUILD)/install/hotnas_torch/_C.so hotnas_torch/new_C.so && \
	  mv -f hotnas_torch/new_C.so hotnas_torch/_C.so; }

# The operators and programs that only tests use, the sanitizers' among them.
lanes: ext
	@$(BIN)/cmake --build $(BUILD)
endif

CONFIGURE = CXX='$(CXX)' $(BIN)/cmake -S csrc -B $(BUILD) -G Ninja \
  -DCMAKE_MAKE_PROGRAM="$(abspath $(BIN))/ninja" -DPython_EXECUTABLE="$(abspath $(BIN))/python" \
  -DHOTNAS_TESTING=ON -DHOTNAS_WERROR=ON -DHOTNAS_CUDA_ARCHITECTURES='$(CUDA_ARCHITECTURES)'

$(BUILD)/build.ninja: $(DEPS) Makefile
	$(CONFIGURE) -DHOTNAS_WITH_CUDA=$(CUDA)
	touch $@

# Fails where there is no nvcc (CUDA_HOME, /usr/local/cuda/bin, PATH).
cuda: $(DEPS)
	$(CONFIGURE) -DHOTNAS_WITH_CUDA=ON
	$(MAKE) ext

clean:
	rm -rf build dist runs hotnas_torch/_C.so hotnas_torch/_no_cuda.txt hotnas_torch/_no_ext.txt
