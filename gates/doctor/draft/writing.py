"""Writes a draft into gate.yaml: a new file, or with --force an existing one. Without --force an existing file stays as
it is; with it, a copy is kept.
"""

import datetime as dt
import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from gates.errors import ConfigError

HEAD = """\
# Drafted by `gate doctor --write`. Review every line: each guess says how sure it is and why; decide what is `perhaps`.
# Then `gate lint --target`, and `gate run --dry-run`, which decides and changes nothing. See docs/adopt.md.
version: 1

"""
OURS = ("contract", "names")
"""Members that a draft replaces; all others of an existing file stay."""
MANIFEST = "schema-manifest.json"
_KEY = re.compile(r"^([A-Za-z_][A-Za-z0-9_-]*):", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written: its unified diff from the old one, and where the old one is kept."""

    path: Path
    difference: str = ""
    kept: Path | None = None


def refuse_to_overwrite(path: Path, *, force: bool) -> None:
    """Raise ConfigError if the file exists and --force was not given."""
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
    """The old text with the draft's members replacing its own; the rest stays, including comments."""
    kept = [b for b in _blocks(old) if b[0] not in OURS]
    known = {name for name, _ in kept if name}
    drafted = "".join(block for name, block in _blocks(draft) if name not in known)
    text = "".join(block for _, block in kept).rstrip("\n") + "\n"
    text = f"{text}\n{drafted}"
    return _with_manifest(text, manifest) if manifest else text


def _blocks(text: str) -> list[tuple[str, str]]:
    """Each top-level member with its lines, including the comments right before it."""
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
