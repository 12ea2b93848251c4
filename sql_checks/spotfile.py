"""Reads a spot check: one `.sql` file with a header, one SELECT whose rows are violations, and what counts as seen.

    -- id: sql/spot/replay-runs-unique
    -- claim: One idempotency key of a company names one run.
    -- cost: A key that is not unique lets the same replay run twice.
    -- severity: page
    -- covers: D15
    select subject, detail, witness from ...;

    -- seen:
    select count(*) as seen from ...;

The seen query gives either one row with the one column `seen`, or rows, which are counted.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from gates import disk
from gates.contract.fragments import LIMIT, FragmentError, expand
from gates.deployment.dialect.current import current
from gates.evidence import CheckSpec, Severity, Where
from gates.inputs.shapes import nearest
from gates.inputs.strict_yaml import unseen

SPOT = Path(__file__).parent / "spot"
REQUIRED = ("id", "claim", "cost", "severity")
OPTIONAL = ("where", "covers", "minimum", "reads", "deep")
SEEN_LINE = re.compile(r"^-- seen:[ \t]*$", re.MULTILINE)
HEADER_LINE = re.compile(r"^-- ([a-z_]+):[ \t]*(.*)$")
CONTINUED = re.compile(r"^--[ \t]{2,}(\S.*)$")
FILE_NAME = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")
FORBIDDEN = re.compile(r"\b(insert|update|delete|truncate|alter|drop|create|grant|revoke|copy|vacuum)\b", re.IGNORECASE)
STRING_OR_COMMENT = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)


class SpotFileError(ValueError):
    """A spot check file cannot be used: what was observed, what is allowed, where, what to do."""


@dataclass(frozen=True, slots=True)
class SpotCheck:
    """One spot check. `minimum`: rows that must be seen; `reads`: `rows` (tables under row security) or `catalogue`."""

    spec: CheckSpec
    path: Path
    violations: str
    seen: str
    minimum: int = 1
    reads: str = "rows"


def read_spot(path: Path) -> SpotCheck:
    """Read one file. Raise SpotFileError with `file:line` for anything that the module's docstring does not allow."""
    text = disk.read_text(path)
    if wrong := unseen(text, str(path)):
        raise SpotFileError(str(wrong))
    header, body_line = _header(path, text)
    name = FILE_NAME.match(path.name)
    if name is None:
        raise SpotFileError(f"{path}:1: the file name is {path.name!r}; allowed: NNNN_name.sql. Rename the file")
    wanted = f"sql/spot/{name.group(2).replace('_', '-')}"
    if header["id"] != wanted:
        raise SpotFileError(f"{path}:1: the id is {header['id']!r}; allowed: {wanted!r}. Make name and id agree")
    body = "\n".join(text.splitlines()[body_line:])
    parts = SEEN_LINE.split(body)
    if len(parts) != 2:
        raise SpotFileError(
            f"{path}:{body_line + 1}: {len(parts) - 1} lines `-- seen:` were found; allowed: exactly 1."
            " Add the query that counts what was looked at"
        )
    return SpotCheck(
        spec=_spec(header),
        path=path,
        violations=_expanded(path, require_query(path, parts[0])),
        seen=_expanded(path, require_query(path, parts[1])),
        minimum=int(header.get("minimum", "1")),
        reads=header.get("reads", "rows"),
    )


def _header(path: Path, text: str) -> tuple[dict[str, str], int]:
    found: dict[str, str] = {}
    last = ""
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if not line.startswith("--"):
            _complete(path, found)
            return found, index
        if match := HEADER_LINE.match(line):
            last = match.group(1)
            _known(path, index + 1, last, found)
            found[last] = match.group(2).strip()
        elif (more := CONTINUED.match(line)) and last:
            found[last] += " " + more.group(1).strip()
        else:
            raise SpotFileError(
                f"{path}:{index + 1}: {line!r} is no header line; allowed: `-- key: value` or an indented continuation"
            )
    raise SpotFileError(f"{path}:{len(lines)}: the file has no query; a header and one SELECT are needed")


def _known(path: Path, line: int, key: str, found: dict[str, str]) -> None:
    allowed = (*REQUIRED, *OPTIONAL)
    if key in found:
        raise SpotFileError(f"{path}:{line}: the header line {key!r} is there twice; allowed: once. Remove one")
    if key not in allowed:
        told = f"unknown header line {key!r}; allowed: {', '.join(allowed)}. {nearest(key, allowed)}"
        raise SpotFileError(f"{path}:{line}: {told}")


def _complete(path: Path, header: dict[str, str]) -> None:
    missing = [k for k in REQUIRED if not header.get(k)]
    if missing:
        raise SpotFileError(f"{path}:1: the header lacks {', '.join(missing)}; all of {', '.join(REQUIRED)} are needed")
    for key, allowed in (
        ("severity", [s.value for s in Severity]),
        ("where", [Where.READ_ONLY.value]),
        ("reads", ["rows", "catalogue"]),
        ("deep", ["true", "false"]),
    ):
        if key in header and header[key] not in allowed:
            raise SpotFileError(f"{path}:1: {key} is {header[key]!r}; allowed: {', '.join(allowed)}")
    if not header.get("minimum", "1").isdigit() or int(header.get("minimum", "1")) < 1:
        raise SpotFileError(f"{path}:1: minimum is {header['minimum']!r}; allowed: a whole number of at least 1")


def require_query(path: Path, text: str) -> str:
    """The one read-only statement of a text, without its semicolon. Raise SpotFileError for anything else."""
    bare = STRING_OR_COMMENT.sub(" ", text).strip()
    if not re.match(r"(select|with|table|values)\b", bare, re.IGNORECASE):
        raise SpotFileError(f"{path}: {bare[:40]!r} is no query; allowed: one SELECT (or WITH ... SELECT)")
    if ";" in bare.rstrip(";"):
        raise SpotFileError(f"{path}: more than one statement in a section; allowed: one. Split the file")
    if writes := FORBIDDEN.search(bare):
        raise SpotFileError(f"{path}: the query holds {writes.group(0)!r}; a spot check only reads")
    masked = STRING_OR_COMMENT.sub(_mask, text).rstrip("; \t\n")
    return text[: len(masked)].strip() if bare.endswith(";") else text.strip()


def _mask(found: re.Match[str]) -> str:
    text = found.group()
    return (" " if text.startswith(("--", "/*")) else "x") * len(text)


def _expanded(path: Path, text: str) -> str:
    try:
        own = {f"{LIMIT}{one.name}": str(one.policy) for one in current().own_limits}
        return expand(text, (path.parent / "fragments", SPOT / "fragments"), own)
    except FragmentError as error:
        raise SpotFileError(str(error)) from error


def _spec(header: dict[str, str]) -> CheckSpec:
    return CheckSpec(
        id=header["id"],
        claim=header["claim"],
        cost=header["cost"],
        severity=Severity(header["severity"]),
        where=Where(header.get("where", "read-only")),
        needs=("database",),
        covers=tuple(header.get("covers", "").replace(",", " ").split()),
        deep=header.get("deep") == "true",
    )


def read_folder(folder: Path = SPOT) -> list[SpotCheck]:
    """All spot checks of a folder, by file name. Raise SpotFileError also for an id that is there twice."""
    found: dict[str, SpotCheck] = {}
    for path in sorted(folder.glob("*.sql")):
        spot = read_spot(path)
        if spot.spec.id in found:
            other = found[spot.spec.id].path.name
            raise SpotFileError(f"{path}:1: the id {spot.spec.id!r} is also in {other}; allowed: once")
        found[spot.spec.id] = spot
    return list(found.values())
