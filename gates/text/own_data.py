"""The project's own YAML files; `gates.inputs.strict_yaml` reads those of users."""

from pathlib import Path
from typing import Any

import yaml

_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's loader, ten times as fast, if PyYAML has it: every process of ours reads the contract."""


def data_of(path: Path) -> Any:
    """The contents of the file."""
    return yaml.load(path.read_text(encoding="utf-8"), _LOADER)  # noqa: S506  -- both loaders are safe
