# GNU make >= 3.81 (what macOS ships) and a POSIX shell; nothing here is specific to Linux.
#
#   make bench ARGS="-c 1,2"        more arguments for the command behind a target
#   make setup PYTHON=python3.12    the Python to build .venv with (default: the first that is 3.11 or newer)
#   make setup EXTRAS=llama         fewer extras: less to download (default: all)
#   make setup LOCKED=1             the exact versions of requirements-dev.lock, checked by hash, as CI does
#   make setup UV=                  pip although uv is installed

.DEFAULT_GOAL := help
.PHONY: help setup browser fuzz model bench bench-cpu bench-gpu bench-npu bench-remote endpoint stress demo unit test check endurance sanitize audit check-lowest bench-client soak guide lock clean

#   make test JOBS=0                one process, to debug in

# The tests start many Python processes: without cached bytecode each compiles all of loadbench anew.
export PYTHONDONTWRITEBYTECODE :=

ARGS   ?=
JOBS   ?= 4
EXTRAS ?= all
LOCKED ?=
PYTHON ?=
FUZZ   ?= sse recorder framing scenario folder
FUZZ_SECONDS ?= 60
UV     ?= $(shell command -v uv 2>/dev/null)

BIN    := $(if $(filter Windows_NT,$(OS)),.venv/Scripts,.venv/bin)
PY     := $(BIN)/python
LOWEST := $(subst .venv,.venv-lowest,$(PY))
comma  := ,
PYTEST := $(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
# What .venv holds so far, a file each: `bench` needs the packages that measure, the device targets Foundry Local's SDK
# too, and the tests everything. A larger one that is there serves a target that needs less.
DEV     := .venv/$(if $(LOCKED),locked,dev)
LARGER  := $(if $(LOCKED),$(DEV),$(wildcard .venv/dev))
FOUNDRY := $(firstword $(LARGER) .venv/foundry)
BASE    := $(firstword $(LARGER) $(wildcard .venv/foundry) .venv/base)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
	@echo '  Arguments go on with ARGS: make bench ARGS="-c 1,2"'

setup: $(DEV) model ## build .venv with everything (uv if installed, else pip) and fetch the embedded model: 310 MB to download

# Done again when pyproject.toml or the lock file changes. The folder .venv.lock keeps a second make out of a .venv
# that the first one is building.
.venv/base:    WHAT := llama
.venv/foundry: WHAT := llama,foundry,gpu
$(DEV):        WHAT := $(EXTRAS),dev
.venv/base:    SIZE := 70 MB to download, $(if $(UV),240,310) MB on disk; the embedded model, fetched when it is used, another 93 MB
.venv/foundry: SIZE := 115 MB to download, about 400 MB on disk, Foundry Local's SDK included
$(DEV):        SIZE := 220 MB to download, up to 900 MB on disk, the development tools included

.venv/base .venv/foundry $(DEV): pyproject.toml hatch_build.py loadbench/transport/_reader.c $(if $(LOCKED),requirements-dev.lock)
	@set -e; \
	[ -w . ] || { echo "setup: this folder cannot be written; clone it to a place that can" >&2; exit 1; }; \
	told=; \
	until mkdir .venv.lock 2>/dev/null; do \
	  [ -n "$$told" ] || echo "setup: another make builds .venv, waiting for it (if none does: rmdir .venv.lock)"; \
	  told=yes; sleep 1; \
	done; \
	trap 'rmdir .venv.lock' EXIT; trap 'exit 130' INT TERM; \
	if [ -n "$$told" ] && [ -e $@ ] && [ ! pyproject.toml -nt $@ ]; then exit 0; fi; \
	if ! $(PY) -c '' 2>/dev/null || { [ -z "$(UV)" ] && ! $(PY) -m pip --version >/dev/null 2>&1; }; then \
	  if [ -n "$(UV)" ]; then \
	    "$(UV)" venv --quiet --clear --python "$(or $(PYTHON),>=3.11)" .venv; \
	  else \
	    python=; old=; \
	    for p in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
	      if "$$p" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	      then python=$$p; break; fi; \
	      v=$$("$$p" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) && old="$$old $$p ($$v)"; \
	    done; \
	    if [ -z "$$python" ]; then \
	      echo "setup: needs Python 3.11 or newer with its venv module; found:$${old:- none}" >&2; \
	      echo "setup: Debian, Ubuntu: apt install python3-venv | macOS: brew install python | any: install uv" >&2; \
	      echo "setup: or name one: make setup PYTHON=/path/to/python3" >&2; \
	      exit 1; \
	    fi; \
	    "$$python" -m venv --clear .venv; \
	  fi; \
	fi; \
	install() { \
	  if [ -n "$(UV)" ]; then "$(UV)" pip install --quiet --python $(PY) "$$@"; \
	  else $(PY) -m pip install --quiet --disable-pip-version-check "$$@"; fi; \
	}; \
	echo "setup: installing into .venv with $(if $(UV),uv,pip), once, a minute or so: $(SIZE)"; \
	if [ -n "$(LOCKED)" ]; then \
	  install --require-hashes -r requirements-dev.lock; \
	  install --no-deps -e .; \
	elif ! install -e ".[$(WHAT)]"; then \
	  case "$(WHAT)" in all,dev|llama,foundry,gpu) ;; *) exit 1;; esac; \
	  echo "setup: not every extra can be installed here (see above); going on without Foundry Local's SDK" >&2; \
	  install -e ".[llama$(if $(filter $@,$(DEV)),$(comma)dev)]"; \
	fi; \
	[ -e loadbench/transport/_reader.abi3.so ] && echo "setup: with the reader thread" || \
	  echo "setup: without the reader thread: no C compiler, or no Python.h; everything else works" >&2; \
	touch $@

# No stamp: the file is in the user's cache, which .venv knows nothing about; a look at it takes a moment.
# Without it everything but the embedded model works, so this never stops a build.
model: $(DEV)
	@$(PY) -P -m loadbench.serve.llama --fetch-only >/dev/null || \
	  echo "setup: no embedded model; with an endpoint, or --simulate, loadbench works without it" >&2

bench: $(BASE) ## measure the embedded real model, or the Foundry Local service that is found here
	$(PY) -P -m loadbench run scenarios/quickstart.toml $(ARGS)

bench-cpu bench-gpu bench-npu: bench-%: $(FOUNDRY)
	$(PY) -P -m loadbench run scenarios/profiles/$*.toml $(ARGS)

bench-cpu: ## measure the variants for the processor: up to 4 streams
bench-gpu: ## measure the variants for the GPU: up to 32 streams
bench-npu: ## measure the variants for the NPU: up to 4 streams

bench-remote: endpoint $(BASE) ## measure the server at FOUNDRY_LOCAL_ENDPOINT
	$(PY) -P -m loadbench run scenarios/profiles/remote.toml $(ARGS)

endpoint:
	@[ -n "$$FOUNDRY_LOCAL_ENDPOINT" ] || { \
	  echo "bench-remote: FOUNDRY_LOCAL_ENDPOINT is not set; say which server:" >&2; \
	  echo "  make bench-remote FOUNDRY_LOCAL_ENDPOINT=http://host:port/v1" >&2; exit 2; }

stress: $(BASE) ## load the model until it saturates
	$(PY) -P -m loadbench run scenarios/stress.toml $(ARGS)

demo: $(BASE) ## the whole way in a minute against the simulator: no model, invented figures
	$(PY) -P -m loadbench run scenarios/quickstart.toml --simulate -d 10s $(ARGS)

# The tests open report.html in a real browser. Debian's needs root; elsewhere an installed Chrome or Edge is found.
browser: ## install headless Chromium for the tests of report.html, where apt-get and root are there
	@if [ -n "$$LOADBENCH_NO_BROWSER$$LOADBENCH_BROWSER" ] || command -v chromium >/dev/null || \
	  command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null; \
	then :; elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "browser: installing Debian's chromium for the tests of report.html, once"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	else \
	  echo "browser: no Chromium found. Install chromium or Chrome, or name one: LOADBENCH_BROWSER=/path/to/chrome;" >&2; \
	  echo "browser: LOADBENCH_NO_BROWSER=1 leaves out the tests that need one" >&2; \
	fi

unit: $(DEV) ## run the tests that start no process
	$(PYTEST) -m "not system and not endurance" $(ARGS)

test: setup browser ## run the unit and system tests
	$(PYTEST) $(ARGS)

check: setup browser ## all that CI runs: format, lint, types, import order, vulnerabilities, tests
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(BIN)/lint-imports
	$(PY) tests/audit.py --uv "$(UV)"
	$(PYTEST) $(ARGS)

# Before a release, and whenever its subject changes.
endurance: setup browser sanitize ## run what takes long: kills, coverage of intervals, many hosts, many more inputs
	$(PYTEST) -m endurance --timeout 900 $(ARGS)
	FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),400) $(PYTEST) -m hypothesis --timeout 900 $(ARGS)

# The C code alone is instrumented. ThreadSanitizer knows no threads after a fork, and wants addresses that are not random.
sanitize: $(DEV) ## the tests of the reader thread under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer
	@set -e; copy=$$(mktemp -d); trap 'rm -rf "$$copy"' EXIT; cc=$${CC:-cc}; \
	command -v $$cc >/dev/null || { echo "sanitize: left out: no C compiler"; exit 0; }; \
	cp -R loadbench tests docs pyproject.toml $$copy; rm -f $$copy/loadbench/transport/*.so; \
	include=$$($(PY) -c 'import sysconfig; print(sysconfig.get_paths()["include"])'); \
	for sanitizer in address,undefined thread; do \
	  case $$sanitizer in thread) name=tsan; tests=" and not forked";; *) name=asan; tests=;; esac; \
	  library=$$($$cc -print-file-name=lib$$name.so); \
	  [ -e "$$library" ] || { echo "sanitize: left out: no lib$$name.so"; continue; }; \
	  echo "sanitize: $$sanitizer"; \
	  $$cc -std=c11 -O1 -g -fsanitize=$$sanitizer -fno-sanitize-recover=all -fPIC -shared -pthread -I "$$include" \
	    $$copy/loadbench/transport/_reader.c -o $$copy/loadbench/transport/_reader.abi3.so; \
	  (python="$$PWD/$(PY)"; cd $$copy; export PYTHONPATH=$$copy ASAN_OPTIONS=detect_leaks=0; \
	    export TSAN_OPTIONS=ignore_noninstrumented_modules=1; $$(command -v setarch >/dev/null && echo setarch -R) \
	    env LD_PRELOAD=$$library $$python -P \
	    -c 'import sys, pytest, loadbench.transport._reader; sys.exit(pytest.main(sys.argv[1:]))' -p no:cacheprovider \
	    -k "(reader or thread)$$tests" tests/test_reader.py tests/test_faults.py tests/test_client.py); \
	done

audit: $(DEV) ## look for known vulnerabilities in the locked versions, where the index has advisories
	$(PY) tests/audit.py --uv "$(UV)" $(ARGS)

# Atheris has wheels for Linux and macOS alone, so that it is no part of the extra dev.
fuzz: $(DEV) ## look for inputs that break a reader, FUZZ_SECONDS for each (60): FUZZ="sse folder" chooses
	@$(PY) -c 'import atheris' 2>/dev/null || $(if $(UV),"$(UV)" pip install --quiet --python $(PY),$(PY) -m pip install --quiet) \
	  atheris || { echo "fuzz: atheris cannot be installed here; the tests in tests/test_fuzz_*.py run without it" >&2; exit 1; }
	@for target in $(FUZZ); do \
	  echo "fuzz: $$target, $(FUZZ_SECONDS) s"; \
	  $(PY) tests/fuzz/targets.py $$target -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=fuzz- $(ARGS) >fuzz-$$target.log 2>&1 || \
	    { tail -n 40 fuzz-$$target.log; exit 1; }; \
	  rm fuzz-$$target.log; \
	done

# On Python 3.11, the lowest too: newer ones lack wheels of some of these versions. --seed, as the tests call pip.
check-lowest: ## run the tests with the oldest versions that pyproject.toml allows (needs uv)
	@[ -n "$(UV)" ] || { echo "check-lowest: needs uv; pip cannot choose the oldest versions" >&2; exit 1; }
	"$(UV)" venv --quiet --clear --seed --python "$(or $(PYTHON),3.11)" .venv-lowest
	"$(UV)" pip install --quiet --python $(LOWEST) --resolution lowest-direct -e ".[llama,dev]"
	$(LOWEST) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

bench-client: $(DEV) ## what the client itself costs: CPU per token, lag, streams it can hold
	$(PY) tests/bench_client.py $(ARGS)

soak: $(DEV) ## half an hour against a server that fails in every way: does memory grow, is a record missing?
	$(PY) tests/soak.py $(ARGS)

guide: $(DEV) browser ## write anew what README.md and docs/ show of the program: reports, options, pictures
	$(PY) -m tests.guide $(ARGS)
	$(PY) -m tests.dialect_page

lock: ## write requirements-dev.lock again after a change of dependencies (newer versions: ARGS=--upgrade)
	@[ -n "$(UV)" ] || { echo "lock: needs uv" >&2; exit 1; }
	"$(UV)" pip compile --quiet --all-extras --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --custom-compile-command "make lock" $(ARGS) pyproject.toml -o requirements-dev.lock

clean: ## remove .venv, those of other targets, and caches; results and the model file stay
	rm -rf .venv .venv.lock .venv-lowest .venv-audit build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
