# The commands a person types. Needs GNU Make, git and Python 3.11 or newer; everything else goes into $(VENV).

PYTHON ?= python3
VENV   ?= .venv

BIN := $(abspath $(VENV))/bin
PY  := $(BIN)/python

export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check bench docs serve-flask serve-django serve-fastapi clean

help:
	@echo "make demo            run the three example projects, cancel something in each, show what happened (KEEP=1: leave them up)"
	@echo "make test            all tests, with the coverage gate (ARGS=... goes to pytest)"
	@echo "make check           ruff, mypy, pyright"
	@echo "make bench           every benchmark; prints ratios"
	@echo "make docs            write the generated pages of docs/reference from the docstrings"
	@echo "make serve-flask     the Flask example on    http://127.0.0.1:8001"
	@echo "make serve-django    the Django example on   http://127.0.0.1:8002"
	@echo "make serve-fastapi   the FastAPI example on  http://127.0.0.1:8003"
	@echo "make clean           remove $(VENV) and caches"
	@echo "PYTHON=python3.13 and VENV=... choose another interpreter and another place."

# The environment, in two sizes. Each stamp is written last: an interrupted installation starts over.

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1)." >&2; \
	  echo "Name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --upgrade "pip>=25.1"
	@touch $@

$(VENV)/.demo: pyproject.toml $(VENV)/.made
	$(PY) -m pip install --quiet --editable ".[all]" --group demo
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.made
	$(PY) -m pip install --quiet --editable ".[all]" --group dev
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	$(PY) example_projects/demo.py $(if $(KEEP),--keep)

test: $(VENV)/.dev
	$(PY) -m pytest -p randomly --cov $(ARGS)

check: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pyright --pythonpath $(PY)

bench: $(VENV)/.dev
	@set -e; for file in benchmarks/bench_*.py; do echo "== $$file"; $(PY) $$file; done

docs: $(VENV)/.dev
	$(PY) docs/generate_reference.py

serve-flask: $(VENV)/.demo
	cd example_projects/flask_report_builder && exec $(BIN)/gunicorn -c python:cancelable_core.servers.gunicorn --worker-class gthread --threads 8 -b 127.0.0.1:8001 'report_builder:create_app()'

serve-django: $(VENV)/.demo
	cd example_projects/django_bulk_export && $(PY) manage.py migrate && $(PY) manage.py seed && exec $(BIN)/gunicorn -c python:cancelable_core.servers.gunicorn --threads 8 -b 127.0.0.1:8002 bulk_export.wsgi

serve-fastapi: $(VENV)/.demo
	cd example_projects/fastapi_live_stream && exec $(BIN)/uvicorn live_stream:app --port 8003 --timeout-graceful-shutdown 3

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage build dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
