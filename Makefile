# make demo      set up if needed, then draw two prompts with and without guidance
# make test      set up if needed, then run all tests, one process a core with one thread each
# make check     formatting, lint, types
# make coverage  the tests of the layers that need no diffusers, with a floor for their coverage
# make wheel     build the wheel and try it in an empty virtual environment
# make bench     run the benchmarks that lack results, and write the pages that come from them
VENV ?= .venv
OUT ?= demo
bin := $(VENV)/bin
install := $(bin)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

pytest := OMP_NUM_THREADS=1 TRANSFORMERS_VERBOSITY=error $(bin)/python -m pytest -q \
	-n logical --maxprocesses 8 --dist worksteal
core := cli/test_memory.py guidance memory metrics runs/ray/test_shard.py scores shields test_kernels.py test_tensorfile.py

.PHONY: demo test check coverage wheel bench
demo: $(VENV)/.installed
	@$(bin)/unalike generate "thumbs up" farmer --model emoji-turbo --num 8 --compare --out $(OUT) --overwrite

test: $(VENV)/.installed-dev
	@$(pytest)

check: $(VENV)/.installed-dev
	@PATH="$(CURDIR)/$(bin):$$PATH" scripts/check

coverage: $(VENV)/.installed-dev
	@$(pytest) --cov --cov-report=term:skip-covered $(addprefix tests/,$(core))

wheel: $(VENV)/.installed-dev
	@$(bin)/python scripts/check_wheel.py

bench: $(VENV)/.installed-dev
	@for benchmark in toy pareto fewstep sparsity cost awareness shield_search shield_emoji throughput regions ambient; do \
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
	@$(install) --no-deps k-diffusion  # its samplers alone; its training needs torchvision
	@touch $@ $(VENV)/.installed
