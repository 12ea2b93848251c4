"""Two faults of one program at once: the second is built on what the first made of the release."""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from replay_service.parts import Parts
from replay_service.settings import Settings
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings


def service(settings: Settings) -> Parts:
    """The service with the faults that the variable FAULTS_OF_THE_SERVICE names, module:function each."""
    made: Parts = _built(os.environ["FAULTS_OF_THE_SERVICE"].split(), "build_parts", settings)
    return made


def worker(settings: WorkerSettings) -> WorkerParts:
    """The worker with the faults that the variable FAULTS_OF_THE_WORKER names, module:function each."""
    made: WorkerParts = _built(os.environ["FAULTS_OF_THE_WORKER"].split(), "build_worker_parts", settings)
    return made


def _built(places: list[str], builder: str, settings: Any) -> Any:
    made = None
    for place in places:
        module, _, function = place.partition(":")
        build = getattr(importlib.import_module(module), function)
        with _starting_from(made, builder):
            made = build(settings)
    return made


@contextmanager
def _starting_from(made: Any, builder: str) -> Iterator[None]:
    """Within it, the faults start from `made`, where there is something, and not from the release."""
    modules = [m for name, m in sys.modules.items() if name.startswith("faults.") and hasattr(m, builder)]
    kept = [(m, getattr(m, builder)) for m in modules if made is not None]
    for module, _ in kept:
        setattr(module, builder, lambda _settings: made)
    try:
        yield
    finally:
        for module, sound in kept:
            setattr(module, builder, sound)
