# make reproduce [ENV="game24 …"] [PROFILE=fast] [SEED=0] [OUT=runs/fast]   run the notebooks, write results and report
#      [POLICY="http://localhost:8000/v1#my-model concurrency=4"] [DATA_LLM=…] [REWARD=…]   other models, with options
# make test [ALL=1]   lint, types, clean notebooks, tests; ALL=1: also those that take several seconds each
# make install [UV=1] [PIP="…"]   what all of these do first, alone; by uv instead of pip, with more options for it
# make lab [ENV=webshop] [LAB=--allow-root]   open the notebooks in JupyterLab, with more options for it; ENV: copies of
#      those of one world, under build/reader-webshop
# make student, make instructor [ENV=webshop]   copies of the notebooks under build/, without or with solutions
# make nbgrader   the exercises as a course for nbgrader, under build/nbgrader
#      [VARIANT=7]   these three and `make grade` with other numbers in the first exercises, for an exam
# make slides [ENV=webshop] [OUT=runs/fast]   a deck for each notebook of a finished run, under build/slides
# make grade [FOLDER=handed_in] [CSV=grades.csv]   points for every notebook in a folder, by exercise
# make clean   remove what was installed and cached; results under runs/ and copies under build/ stay
# Needs Python 3.10-3.13 (3.14: not tested); name another than python3 with PYTHON=python3.12.

# Plain assignments: a variable of the shell that happens to have one of these names (ENV often does) changes nothing.
PYTHON := python3
ENV :=
PROFILE := fast
SEED := 0
OUT = runs/$(PROFILE)
POLICY :=
DATA_LLM :=
REWARD :=
FOLDER := handed_in
CSV := grades.csv
VARIANT :=
LAB :=
UV :=
PIP :=
ALL :=

# Threads that do not spin for long while they wait: see armap_lite/__init__.py.
export GOMP_SPINCOUNT := 10000

BIN := .venv/bin
INSTALL := $(if $(UV),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install) $(PIP)
# A value as one word of the shell, whatever it holds: a folder may have a space or a quote in its name.
arg = '$(subst ','\'',$(1))'
MODELS = $(if $(POLICY), --policy $(call arg,$(POLICY)))$(if $(DATA_LLM), --data-llm $(call arg,$(DATA_LLM)))$(if $(REWARD), --reward $(call arg,$(REWARD)))
VARIANT_OPTION = $(if $(VARIANT), --variant $(call arg,$(VARIANT)))
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
TORCH := $(shell sed -n 's/^ *"\(torch==[^"; ]*\)".*/\1/p' pyproject.toml)

.PHONY: help install reproduce test lab student instructor nbgrader slides grade clean
help:
	@sed -n 's/^# //; 1,/^$$/p' Makefile

install: .venv/installed

reproduce: .venv/installed
	$(BIN)/python -m armap_lite reproduce --profile $(PROFILE) --out $(call arg,$(OUT)) --seed $(SEED)$(if $(ENV), --env $(ENV))$(MODELS)

# A process of pytest for each core, so one thread in each.
test: export OMP_NUM_THREADS := 1
test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy armap_lite
	$(if $(NOTEBOOKS),$(BIN)/nbstripout --verify $(NOTEBOOKS))
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations=60 --durations-min=1$(if $(ALL),, -m "not slow")

# Its kernel is that of this installation, whatever another environment calls python3.
lab: export JUPYTER_PATH :=
lab: export JUPYTER_PREFER_ENV_PATH := 1
lab: .venv/installed
	$(if $(ENV),$(BIN)/python -m armap_lite.course reader build/reader-$(ENV) --env $(ENV))
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/$(if $(ENV),build/reader-$(ENV),notebooks)/00_start_here.ipynb $(LAB)

student instructor: .venv/installed
	$(BIN)/python -m armap_lite.course $@$(if $(ENV), --env $(ENV))$(VARIANT_OPTION)

slides: .venv/installed
	$(BIN)/python -m armap_lite.course slides $(call arg,$(OUT))$(if $(ENV), --env $(ENV))

nbgrader: .venv/installed
	$(BIN)/python -m armap_lite.course nbgrader$(VARIANT_OPTION)

grade: .venv/installed
	$(BIN)/python -m armap_lite.course grade $(call arg,$(FOLDER)) --csv $(call arg,$(CSV))$(VARIANT_OPTION)

# Torch goes first, by its exact pin: then a build that is there already (a CPU build, say) satisfies all that follow.
# The stamp begins as `installing`: where that is still there, an installation was cut off, and is not trusted.
.venv/installed: pyproject.toml
	@$(call arg,$(PYTHON)) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v < (3, 15) else \
	    "%s is Python %d.%d; armap-lite needs 3.10 to 3.13 (3.14: not tested): name one, as in make PYTHON=python3.12" % (sys.executable, *v))'
	if [ -e .venv/installing ]; then rm -rf .venv; fi
	mkdir -p .venv && touch .venv/installing
	$(call arg,$(PYTHON)) -m venv .venv
	$(INSTALL) $(TORCH)
	$(INSTALL) -e ".[dev,teach,scienceworld,webshop,gymnasium,openenv]"
	mv .venv/installing $@

clean:
	rm -rf .venv build/lib build/bdist* dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis lightning_logs
	find . -name __pycache__ -prune -exec rm -rf {} + -o -name .ipynb_checkpoints -prune -exec rm -rf {} +
