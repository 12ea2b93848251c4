"""Who may import whom: the contracts of `[tool.importlinter]` in pyproject.toml."""

from __future__ import annotations

import pytest
from importlinter.cli import lint_imports


def test_every_contract_of_the_layout_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """`lint-imports` says the same. Where a need breaks a contract, change the contract and say why beside it."""
    assert lint_imports(no_cache=True, config_filename="pyproject.toml") == 0, capsys.readouterr().out
