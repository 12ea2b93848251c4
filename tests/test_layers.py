"""Who may import whom: the contracts of `[tool.importlinter]` in pyproject.toml."""

import tomllib

import pytest
from importlinter.cli import lint_imports

from tests.sources import ROOT


def test_every_contract_of_the_layout_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """`lint-imports` says the same. Where a need breaks a contract, change the contract and say why beside it."""
    assert lint_imports(no_cache=True, config_filename="pyproject.toml") == 0, capsys.readouterr().out


def test_the_architecture_names_every_layer() -> None:
    """A room that comes or goes is in docs/architecture.md, too."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (c["layers"] for c in contracts if c["id"] == "layers")
    rooms = {room for layer in layers for room in layer.split(" | ")} - {"__main__"}
    assert {r for r in rooms if f"`{r}/`" not in page and f"`{r}.py`" not in page} == set()
