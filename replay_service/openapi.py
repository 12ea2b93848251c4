"""GET /openapi.json: the committed document, with the base path that this process serves under."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).with_name("openapi.json")


def document(base_path: str = "") -> dict[str, Any]:
    """The OpenAPI 3.1 document as a fresh value."""
    found: dict[str, Any] = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    found["servers"] = [{"url": base_path or "/"}]
    return found
