"""Puts a draft into gate.yaml: into a new file or, where one is there and --force says so, into the old one.

What gate.yaml says in `names:` is carried into the new draft: a person wrote it, and no guess takes its place.

Never overwrites silently: an existing file stays as it is without --force, and is kept as a copy with it.
"""

import datetime as dt
import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gates.doctor.drafting import scalar
from gates.errors import ConfigError

HEAD = """\
# Drafted by `gate doctor --write`. Review every line: each guess says how sure it is and why; decide what is `perhaps`.
# Then `gate lint --target`, and `gate run --dry-run`, which decides and changes nothing. See docs/adopt.md.
version: 1

"""
OURS = ("contract", "names")
"""Members that a draft writes anew; all others of an existing file stay, and are not drafted again."""
MANIFEST = "schema-manifest.json"
_KEY = re.compile(r"^([A-Za-z_][A-Za-z0-9_-]*):", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written: its difference from the old one as a unified diff, and where the old one is kept."""

    path: Path
    difference: str = ""
    kept: Path | None = None


def refuse_to_overwrite(path: Path, *, force: bool) -> None:
    """Raise ConfigError where the file is there and nothing says that it may change."""
    if path.exists() and not force:
        raise ConfigError(
            f"{path} is there already; allowed: a new file, or --force, which keeps the old one as a copy and changes"
            f" only {' and '.join(OURS)}, and adds `checks` where it has none. Add --force, or name another file with"
            " --policy"
        )


def write(path: Path, draft: str, manifest: str, now: dt.datetime) -> Written:
    """Write the draft. manifest: the file for `sql: manifest`, or nothing."""
    if not path.exists():
        sql = f"\nsql:\n  manifest: {manifest}  # of this deployment: review it as you would a migration\n"
        path.write_text(HEAD + draft + (sql if manifest else ""), encoding="utf-8")
        return Written(path)
    old = path.read_text(encoding="utf-8")
    new = merged(old, draft, manifest)
    kept = path.with_name(f"{path.name}.{now:%Y%m%dT%H%M%S}.bak")
    kept.write_text(old, encoding="utf-8")
    path.write_text(new, encoding="utf-8")
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), str(kept), str(path), lineterm="")
    return Written(path, "\n".join(lines), kept)


def merged(old: str, draft: str, manifest: str = "") -> str:
    """The old text with the draft's members in place of its own; what is not the draft's stays, comments and all."""
    kept = [b for b in _blocks(old) if b[0] not in OURS]
    known = {name for name, _ in kept if name}
    drafted = "".join(block for name, block in _blocks(draft) if name not in known)
    text = "".join(block for _, block in kept).rstrip("\n") + "\n"
    text = f"{text}\n{drafted}"
    return _with_manifest(text, manifest) if manifest else text


def _blocks(text: str) -> list[tuple[str, str]]:
    """Each member at the top with its lines; comments right before one belong to it."""
    starts = [(m[1], _with_comments(text, m.start())) for m in _KEY.finditer(text)]
    ends = [*(s for _, s in starts[1:]), len(text)]
    head = [("", text[: starts[0][1]])] if starts else [("", text)]
    return head + [(name, text[start:end]) for (name, start), end in zip(starts, ends, strict=True)]


def _with_comments(text: str, start: int) -> int:
    lines = text[:start].splitlines(keepends=True)
    while lines and lines[-1].startswith("#"):
        start -= len(lines.pop())
    return start


def _with_manifest(text: str, manifest: str) -> str:
    """The text with `sql: manifest`, unless it names one already."""
    block = next((b for name, b in _blocks(text) if name == "sql"), "")
    if not block:
        return f"{text}\nsql:\n  manifest: {manifest}  # of this deployment\n"
    if re.search(r"\bmanifest:", block):
        return text
    flow = re.sub(r"^(sql:\s*\{)", rf"\1manifest: {manifest}, ", block, count=1, flags=re.MULTILINE)
    whole = flow if flow != block else re.sub(r"(?m)^(sql:[^\n]*)$", rf"\1\n  manifest: {manifest}", block, count=1)
    return text.replace(block, whole)


SAID = "  # as it was said"
PART = 2
"""How far each member of a draft is indented more than the one above it."""


def with_said(text: str, drafted: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    """The draft, with what is said in the place of what was drafted. drafted: the draft's `names`, read."""
    lines = text.splitlines()
    for part, value in _merged(drafted, said).items():
        if value == drafted.get(part):
            continue
        if part != "tables":
            lines = _placed(lines, ("names",), part, value)
            continue
        before = drafted.get(part, {})
        for table in (t for t in value if value[t] != before.get(t)):
            lines = _placed(lines, ("names", "tables"), table, value[table])
    return "\n".join(lines) + "\n"


def _merged(drafted: Any, said: Any) -> Any:
    """Both, where both are mappings; else what is said. A table that is told column by column is not absent as well."""
    if not (isinstance(drafted, Mapping) and isinstance(said, Mapping)):
        return said
    both = {**drafted, **{k: _merged(drafted[k], v) if k in drafted else v for k, v in said.items()}}
    if len(both) > 1 and both.get("absent") is True and "absent" not in said:
        del both["absent"]
    return both


def _placed(lines: list[str], above: tuple[str, ...], name: str, value: Any) -> list[str]:
    """The lines with a member on one line of its own, in the place of the old one or at the end of what is above it."""
    start, end = 0, len(lines)
    for depth, parent in enumerate(above):
        found = _block(lines, parent, PART * depth, start, end)
        if found is None:
            lines = [*lines[:end], *([""] if not depth else []), f"{' ' * PART * depth}{parent}:", *lines[end:]]
            end += 1 if depth else 2
            found = end - 1, end
        start, end = found
    indent = PART * len(above)
    at, after = _block(lines, name, indent, start, end) or (end, end)
    return [*lines[:at], f"{' ' * indent}{_member(name, value)}{SAID}", *lines[after:]]


def _block(lines: list[str], name: str, indent: int, start: int, end: int) -> tuple[int, int] | None:
    """Where a member's lines begin and end."""
    heads = tuple(f"{' ' * indent}{n}:" for n in {name, scalar(name)})
    at = next((i for i in range(start, end) if lines[i].startswith(heads)), None)
    if at is None:
        return None
    deeper = " " * (indent + 1)
    return at, next((i for i in range(at + 1, end) if not lines[i].startswith(deeper)), end)


def _member(name: str, value: Any) -> str:
    """A member of YAML on one line, whatever it holds."""
    return yaml.safe_dump({name: value}, default_flow_style=True, width=math.inf, sort_keys=False).strip()[1:-1]
