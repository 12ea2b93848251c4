"""The runbooks of the alerts, for a report that is read where no repository is at hand."""

import functools
import re

from gates.stages.suite import ROOT

FILE = ROOT / "sql_checks" / "alerts" / "runbooks.md"


def section_of(named: str) -> str:
    """The text of a section, as `runbooks.md#outbox-lag` names it; empty where that is none of ours."""
    file, _, anchor = named.partition("#")
    return _sections().get(anchor, "") if file == FILE.name else ""


@functools.cache
def _sections() -> dict[str, str]:
    """Anchor -> text without its heading."""
    try:
        whole = FILE.read_text(encoding="utf-8")
    except OSError:
        return {}
    parts = re.split(r"(?m)^## (.+)$", whole)
    return {title.strip(): text.strip() for title, text in zip(parts[1::2], parts[2::2], strict=True)}
