# objfs: bare `make` prints what can be made.
.DEFAULT_GOAL := help
SHELL := /bin/sh
.ONESHELL:
.SHELLFLAGS := -eu -c

DIR ?= $(HOME)/objfs
VENV := .venv
BIN := $(VENV)/bin
OBJFS := $(CURDIR)/$(BIN)/objfs

# A command starts in half the time where Python may keep what it compiled.
unexport PYTHONDONTWRITEBYTECODE

# What objfs needs to build and run, and what its tests need besides.
PACKAGES := fuse3 libfuse3-dev pkg-config gcc libc6-dev python3-venv python3-dev libisal2
TEST_PACKAGES := rsync git attr acl libcap2-bin radosgw ceph-mon ceph-osd ceph-common
SUITE_PACKAGES := rsync attr acl git tar dbench autoconf automake libtool make perl openssl libacl1-dev libaio-dev uuid-dev xfslibs-dev

.PHONY: help mount umount test check fmt bench posix roundtrip lost-machine packages test-packages clean
.PHONY: crashes two-writers losses faults outages moving powercut snapshots fuzz pjdfstest fsx ltp realapps model
.PHONY: suite-packages

help: ## this text
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  DIR=PATH      where to mount (now $(DIR))"
	@echo "  PYTHON=PATH   which Python to use (3.11 or newer)"

mount: packages $(VENV)/.stamp ## install what is missing, make volume "default" on first use, mount it at DIR
	@contrib/setup/first-mount.sh "$(OBJFS)" "$(DIR)"

umount: $(VENV)/.stamp ## drain and unmount what `make mount` mounted
	@"$(OBJFS)" umount "$(DIR)"

# What npm fetches comes while ruff and mypy look.  Not $(MAKE): with it `make -n` would run all of it.
test: packages test-packages $(VENV)/.stamp-dev ## install what the tests need and run everything
	@contrib/setup/install-azurite.sh $(VENV)/azurite & azurite=$$!
	make --no-print-directory check
	wait $$azurite
	$(BIN)/python -bb -m pytest --numprocesses 2 --dist loadfile $(ARGS)

check: $(VENV)/.stamp-dev ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

fmt: $(VENV)/.stamp-dev ## format the sources
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: packages $(VENV)/.stamp-dev ## the table of workloads: floor, local directory, objfs
	@$(BIN)/python -m bench.run $(ARGS)

posix: packages test-packages $(VENV)/.stamp-dev ## the POSIX contract with a directory of 100,000 names (in `make test` it is small)
	@OBJFS_POSIX_ENTRIES=100000 $(BIN)/python -bb -m pytest -o faulthandler_timeout=900 tests/posix $(ARGS)

roundtrip: packages test-packages $(VENV)/.stamp-dev ## a real tree onto a volume and back on a "new machine", with damage
	@$(BIN)/python -m tests.system.roundtrip $(ARGS)

lost-machine: packages $(VENV)/.stamp-dev ## 20 machines lost under load, each recovered and compared (ARGS="--seeds N --first SEED")
	@$(BIN)/python -m tests.system.lost_machine $(ARGS)

crashes: packages $(VENV)/.stamp-dev ## kills, power cuts, lost machines and killed mounts by the thousand, judged by one oracle
	@$(BIN)/python -m tests.crashes $(ARGS)

two-writers: packages $(VENV)/.stamp-dev ## every end of a writer times every way to succeed it (ARGS="--rounds N --first SEED")
	@$(BIN)/python -bb -m tests.rivals $(ARGS)

losses: $(VENV)/.stamp-dev ## lost buckets for every code and number of buckets, repaired and lost again (ARGS="--only 4+2")
	@$(BIN)/python -bb -m tests.losses $(ARGS)

faults: packages test-packages $(VENV)/.stamp-dev ## mixed load over a real S3 server through a network that fails (ARGS="--minutes 10")
	@$(BIN)/python -bb -m tests.system.faults $(ARGS)

outages: packages test-packages $(VENV)/.stamp-dev ## rsync on a mount while buckets of a real S3 server and local ones go and come (ARGS="--minutes 10")
	@$(BIN)/python -bb -m tests.system.outages $(ARGS)

moving: packages $(VENV)/.stamp-dev ## a bucket replaced under load, the mount killed ten times on the way (ARGS="--seeds N --first SEED")
	@$(BIN)/python -bb -m tests.system.moving $(ARGS)

powercut: packages test-packages $(VENV)/.stamp-dev ## the power cut under SQLite and git on a mount (ARGS="--cuts N --seed SEED")
	@$(BIN)/python -bb -m tests.powercut $(ARGS)

snapshots: packages test-packages $(VENV)/.stamp-dev ## snapshots of a mount on which rsync, SQLite and git are writing (ARGS="--snapshots N --seed SEED")
	@$(BIN)/python -bb -m tests.images $(ARGS)

fuzz: $(VENV)/.stamp-dev ## every decoder for three minutes, with atheris where it installs (ARGS="--seconds N --only NAME")
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,fuzz]' \
		|| echo "atheris does not install here: inputs are mutations of valid ones"
	$(BIN)/python -m tests.fuzz $(ARGS)

pjdfstest: packages $(VENV)/.stamp-dev ## upstream's POSIX assertions on a mount (PJDFSTEST=PATH of a built checkout)
	@$(BIN)/python -bb -m tests.conformance.pjdfstest $(PJDFSTEST) $(ARGS)

fsx: packages $(VENV)/.stamp-dev ## fsx and fsstress on a mount (XFSTESTS=PATH of a built checkout)
	@$(BIN)/python -bb -m tests.conformance.fsx $(XFSTESTS)
	$(BIN)/python -bb -m tests.conformance.fsstress $(XFSTESTS)

ltp: packages $(VENV)/.stamp-dev ## the Linux Test Project's file system calls on a mount (LTP=PATH of a built checkout)
	@$(BIN)/python -bb -m tests.conformance.ltp $(LTP) $(ARGS)

realapps: packages suite-packages $(VENV)/.stamp-dev ## git, make, SQLite, pip, tar, rsync, cp, dbench on a mount (LTP=PATH of a git repository)
	@$(BIN)/python -bb -m tests.conformance.realapps $(LTP) $(ARGS)

model: packages $(VENV)/.stamp-dev ## random histories against the model, at full length
	@$(BIN)/python -bb -m tests.conformance.model $(ARGS)

packages:
	@contrib/setup/install-packages.sh $(PACKAGES)

test-packages:
	@contrib/setup/install-packages.sh $(TEST_PACKAGES)

suite-packages:
	@contrib/setup/install-packages.sh $(SUITE_PACKAGES)

# One environment: the stamp of the tests' tools stands on that of the program.
$(VENV)/.stamp: pyproject.toml contrib/setup/python.sh
	@test -x $(BIN)/python || "$$(contrib/setup/python.sh)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean: ## remove the environment and what tools left
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
