"""The published schemas, for tests of the outputs."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs

from gates import reports

FOLDER = Path(reports.__file__).with_name("schemas")
NAMES = ("verdict", "evidence", "load-result")


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.v1.schema.json").read_text(encoding="utf-8"))
    return found


def broken_rules(name: str, document: object) -> list[str]:
    validator = jsonschema_rs.validator_for(schema(name))
    return [f"{list(e.instance_path)}: {e.message}"[:300] for e in validator.iter_errors(document)]
