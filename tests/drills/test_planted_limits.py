"""Every check of the rate limit has been seen red on a planted defect."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drills.planted import Planted, seen_red
from tests.drills.planted_limits import LIMITS


@pytest.mark.parametrize("planted", LIMITS, ids=lambda p: p.name.replace(" ", "-"))
def test_defect_turns_its_checks_red(planted: Planted, variables: dict[str, str], tmp_path: Path) -> None:
    """The defect turns its checks to fail, by an observation, and leaves others green."""
    seen_red(planted, variables, tmp_path)
