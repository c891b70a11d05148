# All that a developer runs. "make help" lists the targets; each first installs what it needs.
#
#   PYTHON=python3.12       the interpreter that a new environment is made with
#   NIXL=cu13               the NIXL wheel to use: cu12 (default) or cu13
#   NIXL_CONNECT_DEBUG=1    a build with line tracing and live-object counts, not optimised
#   SANITIZE=address        or thread: a build with GCC's sanitizers, and tests under them;
#                           or fuzzer: with Clang's, for fuzz-guided
#   LOCK=                   the newest of what is installed, not the versions of lock.txt
#   ARGS="-k read -x"       passed on to pytest, the demo and the benchmarks

PYTHON ?= python3
VENV ?= .venv
NIXL ?= cu12
NIXL_CONNECT_DEBUG ?= 0
SANITIZE ?=
LOCK ?= lock.txt
ARGS ?=
export NIXL_CONNECT_DEBUG
export NIXL_CONNECT_SANITIZE := $(SANITIZE)
# No folder that a command happens to run in may stand before the installed package.
export PYTHONSAFEPATH = 1

ifeq ($(filter $(NIXL),cu12 cu13),)
$(error NIXL is "$(NIXL)"; it must be cu12 or cu13)
endif
OTHER := $(if $(filter cu12,$(NIXL)),cu13,cu12)
MODE := $(or $(SANITIZE),$(if $(filter-out 0,$(NIXL_CONNECT_DEBUG)),debug,release))
gcc_file = $$(gcc -print-file-name=$(1))
# What tests run under. CPython keeps what it has until the end, so leaks are for valgrind.
UNDER_address = LD_PRELOAD="$(call gcc_file,libasan.so) $(call gcc_file,libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0
UNDER_thread = LD_PRELOAD="$(call gcc_file,libtsan.so) $(call gcc_file,libstdc++.so)" \
	TSAN_OPTIONS=ignore_noninstrumented_modules=1:intercept_tls_get_addr=0:exitcode=66 \
	UCX_MEM_EVENTS=n
# Clang has libFuzzer's coverage; atheris brings its runtime, with AddressSanitizer's.
UNDER_fuzzer = LD_PRELOAD="$$($(BIN)/python -c 'import atheris; print(atheris.path())')/asan_with_fuzzer.so \
	$(call gcc_file,libstdc++.so)" ASAN_OPTIONS=detect_leaks=0
ifeq ($(SANITIZE),fuzzer)
export CC := clang
export LDSHARED := clang -shared
endif

BIN := $(VENV)/bin
UV_READY := $(VENV)/.stamp-uv
FILES := $(sort $(shell find nixl_connect \( -name __pycache__ -o -name '*.so' \) -prune -o -type f -print))
# Their names are in the stamp's, so that a removed file counts as a change.
INSTALLED := $(VENV)/.stamp-installed-$(NIXL)-$(MODE)-$(firstword $(shell echo $(FILES) | cksum))
# One stamp for each dependency group of pyproject.toml that goes into the environment.
GROUPS := build test lint docs fleets package
GROUPS_READY := $(GROUPS:%=$(VENV)/.stamp-%)
BUILD_READY := $(VENV)/.stamp-build
TEST_READY := $(VENV)/.stamp-test
LINT_READY := $(VENV)/.stamp-lint
DOCS_READY := $(VENV)/.stamp-docs
FLEETS_READY := $(VENV)/.stamp-fleets
PACKAGE_READY := $(VENV)/.stamp-package

SOURCES := pyproject.toml setup.py README.md $(LOCK) $(FILES)

# uv does not read pip's settings: hand it the index and the certificates, unless it has its own.
pip_setting = $$($(BIN)/pip config list 2>/dev/null | sed -n "s/^[^=]*\.$(1)='\(.*\)'$$/\1/p" | head -n 1)
define WITH_SETTINGS
index="$${UV_DEFAULT_INDEX:-$(call pip_setting,index-url)}"; \
certificates="$${SSL_CERT_FILE:-$(call pip_setting,cert)}"; \
env $${index:+"UV_DEFAULT_INDEX=$$index"} $${certificates:+"SSL_CERT_FILE=$$certificates"} \
VIRTUAL_ENV=$(abspath $(VENV))
endef
UV = $(WITH_SETTINGS) $(BIN)/uv
# Every installation keeps to the versions of lock.txt.
LOCKED := $(if $(LOCK),--constraint $(LOCK))
UV_INSTALL = $(UV) pip install --quiet $(LOCKED)

# Nothing but the stamps is a file.
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*/\1/p' Makefile)
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s  %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED) ## install and run the demo: two processes, every byte verified
	$(BIN)/nixl-connect demo $(ARGS)

test: $(INSTALLED) $(TEST_READY) ## install and run the tests against the installed package
	$(UNDER_$(SANITIZE)) $(BIN)/pytest $(ARGS)

test-gpu: $(INSTALLED) $(TEST_READY) ## tests and bandwidth of GPUs; without one, says so
	@if $(BIN)/python -c "import sys; from nixl_connect.memory import cuda; sys.exit(not cuda.is_available())"; then \
		echo "installing what \"gpu-$(NIXL)\" needs"; $(UV) pip install --quiet --group gpu-$(NIXL); fi
	$(BIN)/pytest tests/gpu $(ARGS)
	$(BIN)/python bench/gpu.py

test-fleets: $(INSTALLED) $(TEST_READY) $(FLEETS_READY) ## with a NATS server and a Ray cluster, of this machine
	FLEETS=1 $(BIN)/pytest -s tests/docs/test_fleets.py tests/whole/test_ray.py $(ARGS)

test-nixl-versions: $(INSTALLED) $(TEST_READY) ## the core of the tests with every NIXL that is supported
	$(BIN)/python tools/nixl_versions.py $(ARGS)

# BETWEEN names versions of NIXL, by default all; REVISION one of this library, or none.
REVISION ?= 20a57c8
test-between: $(INSTALLED) $(TEST_READY) ## NIXL's versions with each other, and an older revision with today's
	$(BIN)/python tests/versions/between.py $(BETWEEN)
	$(if $(REVISION),$(BIN)/python tests/versions/between.py --revision $(REVISION))

soak: $(INSTALLED) $(TEST_READY) ## mixed traffic with faults at random; ARGS="--seconds 600"
	$(BIN)/python tests/soak.py $(ARGS)

varying: $(INSTALLED) $(TEST_READY) ## fresh memory of varying sizes for each operation; ARGS="--operations 200000"
	$(BIN)/python tests/varying.py $(ARGS)

hammer: $(INSTALLED) $(TEST_READY) ## threads and loops that do everything at once; ARGS="--seconds 600"
	$(UNDER_$(SANITIZE)) $(BIN)/python tests/hammer.py $(ARGS)

valgrind: $(INSTALLED) $(TEST_READY) ## leaks and stray accesses of the native layer
	$(BIN)/python tests/valgrind.py

instructions: $(INSTALLED) $(TEST_READY) ## instructions of an offer and its read, against ceilings
	$(BIN)/python tests/instructions.py

fuzz: $(INSTALLED) $(TEST_READY) ## a million messages of mutated metadata
	HOSTILE_MESSAGES=1000000 $(BIN)/pytest -s tests/wire/test_hostile.py $(ARGS)

fuzz-guided: $(INSTALLED) $(TEST_READY) ## by coverage; of the native code too with SANITIZE=fuzzer; EACH=60 seconds
	@$(UV) pip install --quiet --group fuzz
	targets="$$($(UNDER_$(SANITIZE)) $(BIN)/python tests/fuzz/targets.py)" && test -n "$$targets" && \
	for target in $$targets; do \
		$(UNDER_$(SANITIZE)) $(BIN)/python tests/fuzz/fuzz.py $$target -max_total_time=$(or $(EACH),60) \
			|| exit 1; done

fuzz-protocols: $(INSTALLED) $(TEST_READY) ## nonsense to all that listens, beside good clients; ARGS="--seconds 60"
	$(BIN)/python tests/fuzz/protocols.py $(ARGS)

check: lint types stubs-check protocols-check ## linters, types, stubs and tables against what is built

lint: $(LINT_READY) ## ruff, cython-lint, codespell, and the forge's files against their schemas
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" cython-lint nixl_connect
	$(BIN)/codespell
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms \
		.github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml

types: $(INSTALLED) $(TEST_READY) $(LINT_READY) ## mypy, and what pyright makes of users' programs
	$(BIN)/mypy
	$(BIN)/pytest --quiet tests/typing/checkers.py

stubs-check: $(INSTALLED) $(LINT_READY) ## the stubs against the modules
	$(BIN)/python tools/stubs.py --check
	cd $(VENV) && bin/stubtest nixl_connect._native --concise --ignore-disjoint-bases \
		--allowlist $(CURDIR)/tools/stubtest-allowlist.txt --ignore-unused-allowlist \
		--mypy-config-file $(CURDIR)/pyproject.toml

stubs: $(LINT_READY) ## write the type stubs of the extension modules anew
	$(BIN)/python tools/stubs.py

protocols: $(INSTALLED) $(TEST_READY) ## write the table of protocols anew, of the tests that pass
	$(BIN)/python tools/protocols.py

protocols-check: $(INSTALLED) $(TEST_READY) ## the table of protocols against the tests
	$(BIN)/python tools/protocols.py --check

bench: $(INSTALLED) $(TEST_READY) ## measure beside others, and write docs/benchmarks.md
	PYTHONPATH=bench $(BIN)/python -m harness $(ARGS)

quotes: $(TEST_READY) ## write the figures of docs/benchmarks.json into the pages that quote them
	PYTHONPATH=bench $(BIN)/python -m harness.quotes

mutants: $(INSTALLED) $(TEST_READY) ## change one thing at a time, and see that a test fails; MUTANTS="native --only used"
	@$(UV) pip install --quiet --group mutants
	$(BIN)/python tests/mutants/mutate.py $(or $(MUTANTS),native)
	$(if $(MUTANTS),,$(BIN)/python tests/mutants/mutate.py python)

model: $(INSTALLED) $(TEST_READY) ## explore an operation's life, and play it; LIFE_EXAMPLES=1000
	PYTHONPATH=tests $(BIN)/python -m life.explorer
	LIFE_EXAMPLES=$(or $(LIFE_EXAMPLES),200) $(BIN)/pytest -s tests/whole/test_life_played.py $(ARGS)

lifecycle: ## draw how statuses follow each other anew, from the model
	PYTHONPATH=tests $(PYTHON) -m life.drawing

house: ## draw the floors of the packages anew
	$(PYTHON) tools/house.py

bench-steady: $(INSTALLED) $(TEST_READY) ## ten minutes of an idle pair: processor time and memory
	PYTHONPATH=bench $(BIN)/python -m harness.steady $(ARGS)

bench-ray: $(INSTALLED) $(TEST_READY) ## results of Ray actors, beside Ray's object store and its NIXL transport
	PYTHONPATH=bench $(BIN)/python -m harness.rays

bench-hot: $(INSTALLED) $(TEST_READY) ## measure the hot paths, and compare them with the baseline
	$(BIN)/pytest bench --benchmark-only --check-baseline $(ARGS)

docs: $(INSTALLED) $(DOCS_READY) ## build the documentation into build/docs
	$(BIN)/sphinx-build -W --keep-going -b html docs build/docs

linkcheck: $(INSTALLED) $(DOCS_READY) ## follow the links of the documentation; needs the network
	$(BIN)/sphinx-build -W --keep-going -b linkcheck docs build/linkcheck

build: $(BUILD_READY) ## build the source distribution and the wheel into dist/
	rm -rf dist
	@$(UV) build --quiet --no-build-isolation --python $(BIN)/python
	ls dist

wheels: $(BUILD_READY) $(PACKAGE_READY) ## a wheel for each Python found, repaired and tested, in dist/
	@$(WITH_SETTINGS) $(BIN)/python tools/package.py wheels

test-package: $(BUILD_READY) $(PACKAGE_READY) ## what is built from a clone, installed where nothing is
	@$(WITH_SETTINGS) $(BIN)/python tools/package.py test

test-lowest: $(BUILD_READY) ## the core of the tests with the lowest versions, on the oldest Python found
	@$(WITH_SETTINGS) $(BIN)/python tools/package.py lowest

# The groups and extras that are installed together; those of CUDA 13 contradict those of CUDA 12.
LOCKED_EXTRAS := cu12 cu13 cuda12 cli plot prometheus pydantic ray
lock: $(UV_READY) ## write lock.txt anew, with the newest versions
	@$(UV) pip compile --quiet --upgrade --universal --python-version 3.10 --no-annotate \
		--custom-compile-command "make lock" --output-file lock.txt pyproject.toml \
		$(LOCKED_EXTRAS:%=--extra %) $(GROUPS:%=--group %)

format: $(LINT_READY) ## format the sources, and fix what ruff can fix
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

install: $(INSTALLED) ## build and install the package, and no more

clean: ## remove what was built, not the environment
	rm -rf build dist *.egg-info .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f $(VENV)/.stamp-installed-*
	find nixl_connect -name '*.so' -delete
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## remove the environment too
	rm -rf $(VENV)

$(UV_READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "$(PYTHON) must be Python 3.10 or later" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(LOCKED) uv
	@touch $@

$(GROUPS_READY): $(VENV)/.stamp-%: pyproject.toml $(LOCK) | $(UV_READY)
	@echo "installing what \"$*\" needs"
	@$(UV_INSTALL) --group $*
	@touch $@

# The modules go to the checkout too, so that Python started there, which imports the sources, works.
MODULES := nixl_connect/_native/*.so

# Not editable: what is tested is what a user installs. Files left over from an earlier build would
# get into the wheel, so all but the extension modules, which know when they are stale, go first.
$(INSTALLED): $(SOURCES) | $(BUILD_READY)
	@touch $(VENV)/.started
	@find build/*/lib* -type f ! -name '*.so' -delete 2>/dev/null || true
	@rm -f $(VENV)/.stamp-installed-*
	@echo "building and installing nixl-connect[$(NIXL)], $(MODE)"
	@$(UV) pip uninstall --quiet nixl-$(OTHER)
	@$(UV_INSTALL) --no-build-isolation --reinstall-package nixl-connect '.[$(NIXL),cli]'
	@cp $$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('platlib'))")/$(MODULES) \
		$(dir $(MODULES))
	@mv $(VENV)/.started $@  # as old as the build's beginning: what is edited meanwhile is newer
