"""Every check of authentication, tokens, the HTTP surface and validation has been seen red on a planted defect."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drills.planted import Planted, seen_red
from tests.drills.planted_authentication import AUTHENTICATION
from tests.drills.planted_surface import SURFACE
from tests.drills.planted_tokens import TOKENS

TABLE = [*AUTHENTICATION, *TOKENS, *SURFACE]


@pytest.mark.parametrize("planted", TABLE, ids=lambda p: p.name.replace(" ", "-"))
def test_defect_turns_its_checks_red(planted: Planted, variables: dict[str, str], tmp_path: Path) -> None:
    """The defect turns exactly its checks to fail, by an observation."""
    seen_red(planted, variables, tmp_path)
