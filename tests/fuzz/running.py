"""One target in a process of its own, with limits of memory and of time for one input.

Owns the loop over inputs, guided by atheris or made by ``mutate``.  An input that fails is written into
``tests/fuzz/corpus/NAME``, and ends the process with an exit code that is not 0.
"""

from __future__ import annotations

import importlib
import logging
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from tests.fuzz.corpus import ROOT, save, stored
from tests.fuzz.mutate import LONGEST, mutant

if TYPE_CHECKING:  # a fuzzer watches only what is imported later
    from tests.fuzz.target import Target

INPUT_S = 5
"""The longest that one input may take."""
DECODERS = [
    *("objfs.codec", "objfs.volume", "objfs.store.layout", "objfs.backends.url", "objfs.backends.registry"),
    *("objfs.meta.replica", "objfs.meta.sums", "objfs.cache.ledger", "objfs.cache.offline", "objfs.app.wire"),
]
"""What a fuzzer watches: instrumenting all of objfs takes half a minute."""


def _limit(memory: int) -> None:
    """Bounded memory and time.  Python's own handler of the alarm names the place."""
    logging.disable(logging.CRITICAL)
    limit = memory << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, _too_long)


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"an input took over {INPUT_S} s")


def _target(name: str) -> Target:
    """Imported late, so that a fuzzer can watch the decoders."""
    target: Target = importlib.import_module("tests.fuzz.targets").TARGETS[name]
    return target


def _try(name: str, target: Target, data: bytes) -> bool:
    """Whether the decoder kept its word; an input with which it did not is stored."""
    try:
        target(data)
    except Exception:
        traceback.print_exc()
        print(f"  {name}: {save(name, data)}", flush=True)
        return False
    return True


def mutations(name: str, seconds: int, memory: int) -> None:
    target = _target(name)
    seeds = [*target.seeds(), *stored(name).values()]
    _limit(memory)
    end, number, well = time.monotonic() + seconds, time.time_ns(), True
    count = 0
    while well and time.monotonic() < end:
        signal.alarm(INPUT_S)
        well = _try(name, target, mutant(seeds, number + count))
        signal.alarm(0)
        count += 1
    print(f"  {name}: {count} inputs", flush=True)
    sys.exit(0 if well else 1)


def guided(name: str, seconds: int, memory: int) -> None:
    """libFuzzer keeps the limits, and ends the process itself."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=DECODERS):
        target = _target(name)
    seeds = [*target.seeds(), *stored(name).values()]
    logging.disable(logging.CRITICAL)

    def one(data: bytes) -> None:
        if not _try(name, target, data):
            os._exit(1)

    def change(data: bytes, longest: int, seed: int) -> bytes:
        """Half of the time as libFuzzer does, half with a feeling for JSON."""
        made: bytes = atheris.Mutate(data, longest) if seed % 2 else mutant([data], seed)[:longest]
        return made

    directory = Path(tempfile.mkdtemp(prefix="objfs-fuzz-seeds-"))
    for position, seed in enumerate(seeds):
        (directory / str(position)).write_bytes(seed)
    limits = [f"-max_total_time={seconds}", f"-rss_limit_mb={memory}", f"-timeout={INPUT_S}"]
    rest = [f"-max_len={LONGEST}", f"-artifact_prefix={ROOT / name}/", "-print_final_stats=1", "-verbosity=0"]
    atheris.Setup([name, *limits, *rest, str(directory)], one, custom_mutator=change)
    atheris.Fuzz()
