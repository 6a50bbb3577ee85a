# Every target sets up what it needs from the lock: nothing but Python 3.11 and make has to be there.
PYTHON ?= python3.11
BIN := .venv/bin
TRACES ?= ../shared/traces

.PHONY: setup run test lint bench mutants promql-vectors lock images

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "setting up .venv from requirements.lock" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@

run: setup
	$(BIN)/tiphys run configs/experiments/chat.yaml

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m tests.bench

mutants: setup
	$(BIN)/python -m tests.mutants

# Prometheus' answers, recorded anew in about two minutes. One from a distribution's package will do (`apt-get download
# prometheus`, `dpkg -x`), as will one built from its Go module; there is one file a version.
PROMETHEUS ?= prometheus
promql-vectors: setup
	@command -v "$(PROMETHEUS)" >/dev/null || { echo "make promql-vectors: no $(PROMETHEUS) here: PROMETHEUS=/path/to/prometheus" >&2; exit 2; }
	$(BIN)/python -m tests.promql.record "$(PROMETHEUS)"

BUILDER ?= $(shell command -v podman || command -v docker)
images: setup
	@test -n "$(BUILDER)" || { echo "make images: neither podman nor docker is here" >&2; exit 2; }
	$(BUILDER) build -f images/runner/Containerfile -t tiphys-runner:$$($(BIN)/python -c 'import tiphys; print(tiphys.__version__)') .

# pip-compile (pip-tools) writes no host names with these flags
lock:
	pip-compile -q --strip-extras --generate-hashes --no-header --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-annotate --extra dev -o requirements.lock pyproject.toml
