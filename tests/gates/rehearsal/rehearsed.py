"""The rehearsed app, and the mark in front of each planted mistake."""

from pathlib import Path

APP = Path(__file__).parent / "app"
MARK = "‸"
