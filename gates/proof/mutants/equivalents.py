"""Why some mutants may be promoted: `equivalents.yaml`, the only place for it, read strictly."""

from collections.abc import Mapping
from pathlib import Path

import yaml

FILE = Path(__file__).with_name("equivalents.yaml")


def equivalents(text: str | None = None) -> Mapping[str, str]:
    """Key of the mutant -> the reason. Raise ValueError for anything that is not one."""
    found: dict[str, str] = {}
    for why, keys in (yaml.safe_load(text or FILE.read_text(encoding="utf-8")) or {}).items():
        for key in keys:
            if key in found:
                raise ValueError(f"{key} is there twice; allowed: once; in {FILE.name}. Drop one")
            found[key] = why
    return found
