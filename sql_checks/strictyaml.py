"""Rule files as plain values, read by the gate's own strict YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gates.errors import ConfigError
from gates.inputs.strict_yaml import read


def read_yaml(path: Path) -> Any:
    """The value of a YAML file. Raise ValueError with file:line:column."""
    try:
        return read(path.read_text(encoding="utf-8"), str(path)).as_value()
    except ConfigError as error:
        raise ValueError(str(error)) from error
