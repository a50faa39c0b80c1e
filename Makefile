# make demo    set up if needed, then two prompts with and without guidance, and where the pictures are
# make test    set up if needed, then all tests, in a process a core with one thread each
# make check   formatting, lint, types (what continuous integration runs beside the tests)
# make bench   the benchmarks that are not measured yet, and the pages that come from them
VENV ?= .venv
OUT ?= demo
bin := $(VENV)/bin
install := $(bin)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check bench
demo: $(VENV)/.installed
	@$(bin)/unalike generate heart "thumbs up" --compare --out $(OUT) --overwrite

test: $(VENV)/.installed-dev
	@OMP_NUM_THREADS=1 TRANSFORMERS_VERBOSITY=error $(bin)/python -m pytest -q -n logical --maxprocesses 8 --dist worksteal

check: $(VENV)/.installed-dev
	@PATH="$(CURDIR)/$(bin):$$PATH" scripts/check

bench: $(VENV)/.installed-dev
	@for benchmark in toy pareto sparsity cost awareness shield_search shield_emoji regions ambient; do \
		$(bin)/python -m benchmarks $$benchmark --out benchmarks/results/$$benchmark || exit 1; done
	@$(bin)/python docs/generate.py

$(bin)/python:
	@python=$$(scripts/find-python) && "$$python" -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(bin)/python
	@echo "Installing unalike into $(VENV) …" >&2
	@$(install) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(bin)/python
	@echo "Installing unalike and its development tools into $(VENV) …" >&2
	@$(install) -e '.[dev]'
	@$(install) --no-deps k-diffusion  # for its samplers alone: what its training needs would bring torchvision
	@touch $@ $(VENV)/.installed
