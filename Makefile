# Two commands are promised: `make demo` and `make test`. Each sets itself up.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
# Where Python may not keep what it compiled, each of hundreds of processes compiles it anew.
export PYTHONDONTWRITEBYTECODE =

.PHONY: install help demo test coverage check bench golden soak clean

install: .venv/.installed  ## .venv with the command .venv/bin/meshfed

help:  ## what there is to make
	@sed -n 's/^\([a-z]*\):.*  ## /\1\t/p' Makefile | expand -t 10

.venv/.installed: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "meshfed: no venv module: install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[sidecar]' --group dev
	@touch $@

demo: install  ## OSM's bookstore on this machine; make demo ARGS="--seconds 60 -o json"
	@$(BIN)/meshfed demo $(ARGS)

test: install  ## everything that proves it; what is skipped says why
	$(BIN)/pytest -m 'not soak' --numprocesses 2 $(ARGS)

coverage: install  ## every branch of the xDS protocol's state machine is walked by its transcripts
	$(BIN)/coverage run -m pytest --quiet tests/checklist tests/test_stream_holdings.py
	$(BIN)/coverage report

check: install build/stubs/.made  ## lint, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

build/stubs/.made: deploy/stubs.py .venv/.installed
	$(BIN)/python deploy/stubs.py build/stubs
	@touch $@

bench: install  ## how fast this machine is; make bench ARGS="--proxies 300 -o json"
	@$(BIN)/python deploy/bench $(ARGS)

golden: install  ## rewrite the golden files; read the diff before committing it
	$(BIN)/pytest tests/test_golden.py tests/test_inject_golden.py --update-golden $(ARGS)

soak: install  ## the large numbers: minutes, not seconds
	$(BIN)/pytest -m soak --timeout 1800 $(ARGS)

clean:  ## take away what make has made
	rm -rf .venv build dist
