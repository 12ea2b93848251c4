"""Rule files as plain values, read by the gate's own strict YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gates.errors import ConfigError
from gates.inputs.strict_yaml import YamlNode, read


def read_yaml(path: Path) -> Any:
    """The value of a YAML file. Raise ValueError with file:line:column."""
    try:
        return _plain(read(path.read_text(encoding="utf-8"), str(path)))
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _plain(node: YamlNode) -> Any:
    if isinstance(node.value, dict):
        return {name: _plain(member) for name, (_, member) in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(item) for item in node.value]
    return node.value
