"""The app that is rehearsed, and the mark that stands before a planted mistake."""

from pathlib import Path

APP = Path(__file__).parent / "app"
MARK = "‸"
