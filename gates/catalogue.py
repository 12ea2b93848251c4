"""The catalogue: every check that exists, known before anything runs. Written by `gate lint --write`."""

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from gates.errors import CannotWork
from gates.evidence import CheckSpec

FILE = Path(__file__).with_name("catalogue.json")


def load(path: Path = FILE) -> tuple[CheckSpec, ...]:
    """The specs in a catalogue file. Raise CannotWork if it cannot be read: without it no check would be required."""
    try:
        return _specs(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CannotWork(
            f"{path}: {type(error).__name__}: {error}; allowed: a list of checks. Run `gate lint --write`"
        ) from error


@lru_cache(maxsize=4)  # a command asks several times, a proof for each fault
def _specs(text: str) -> tuple[CheckSpec, ...]:
    return tuple(CheckSpec.from_json(one) for one in json.loads(text))


def dump(specs: Iterable[CheckSpec]) -> str:
    """The text of a catalogue file: one check a line, by id."""
    lines = [json.dumps(s.to_json(), ensure_ascii=False) for s in sorted(specs, key=lambda s: s.id)]
    return "[\n" + ",\n".join(lines) + "\n]\n"
