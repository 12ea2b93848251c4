"""YAML files of the project's own: what a user writes is read by `gates.inputs.strict_yaml`."""

from pathlib import Path
from typing import Any

import yaml

_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, a tenth of the time, where PyYAML was built with it: every process of ours reads the contract."""


def data_of(path: Path) -> Any:
    """What the file says."""
    return yaml.load(path.read_text(encoding="utf-8"), _LOADER)  # noqa: S506  -- either is a safe loader
