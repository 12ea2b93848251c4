"""A rehearsal as these tests ask for it."""

from __future__ import annotations

from pathlib import Path

APP = Path(__file__).parent / "app"


MARK = "‸"
