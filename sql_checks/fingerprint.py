"""The catalogue fingerprint: what the schema is, by kind, written as a manifest of the release and compared with it.

A manifest belongs to a release. Where none of its migrations was applied, the deployment runs another schema, and the
comparison proves nothing. Otherwise a weakening is a `page`, a harmless addition at most a `warn`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gates import disk
from gates.deployment.dialect.current import current
from gates.deployment.sql.database import Connection, execute, sql
from gates.evidence import Severity

HERE = Path(__file__).parent
QUERIES = HERE / "fingerprint"
DEFAULT_MANIFEST = HERE / "manifest.json"
FORMAT = 1
KINDS = (
    "columns",
    "constraints",
    "indexes",
    "triggers",
    "policies",
    "grants",
    "functions",
    "views",
    "row_security",
    "roles",
    "extensions",
)

GUARDED = {"PUBLIC", "anon", "authenticated", "replay_service", "replay_worker", "replay_owner"}
"""Grantees and roles whose every further right is a weakening, by the contract's names."""
OF_A_TABLE = ("columns", "constraints", "indexes", "triggers", "policies")
"""Kinds whose names are `table.name`."""

Objects = Mapping[str, str]

OF_PUBLIC = re.compile(r"\bpublic\.")


class ManifestError(ValueError):
    """A manifest cannot be used: what was observed, what is allowed, where, what to do."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Names and definitions by kind; `migrations` are versions and checksums, in order."""

    migrations: Objects
    kinds: Mapping[str, Objects]

    def to_text(self) -> str:
        data = {"format": FORMAT, "migrations": dict(self.migrations), **{k: dict(self.kinds[k]) for k in KINDS}}
        return json.dumps(data, indent=1, ensure_ascii=False, sort_keys=False) + "\n"


@dataclass(frozen=True, slots=True)
class Difference:
    """One object that is not as the manifest says."""

    name: str
    expected: str | None
    found: str | None
    severity: Severity

    @property
    def text(self) -> str:
        if self.expected is None:
            return f"{self.name}: not in the manifest: {_short(self.found)}"
        if self.found is None:
            return f"{self.name}: missing: {_short(self.expected)}"
        return f"{self.name}: {_short(self.found)} observed, {_short(self.expected)} in the manifest"


def load_manifest(path: Path | None) -> Manifest | None:
    """The manifest of a file (default: the reference's), or None where there is none. Raise ManifestError."""
    file = path or DEFAULT_MANIFEST
    if not file.exists():
        return None
    try:
        data = json.loads(disk.read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(
            f"{file}: {error}; allowed: what `gate sql --write-manifest FILE` writes. Write it again"
        ) from error
    wanted = {"format", "migrations", *KINDS}
    if not isinstance(data, dict) or set(data) != wanted or data["format"] != FORMAT:
        raise ManifestError(f"{file}: not a manifest of format {FORMAT}; allowed keys: {', '.join(sorted(wanted))}")
    return Manifest(data["migrations"], {k: _bare(k, data[k]) for k in KINDS})


def read_schema(connection: Connection) -> Manifest:
    """The schema of the connected database. Raise psycopg.Error."""
    return Manifest(read_migrations(connection), {kind: read_kind(connection, kind) for kind in KINDS})


def read_migrations(connection: Connection) -> Objects:
    """Applied versions and checksums; empty where the deployment keeps its migrations elsewhere."""
    columns = execute(
        connection,
        "select a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid"
        " join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = 'public' and c.relname = 'schema_migrations' and a.attname in ('version', 'checksum')",
    )
    return _named(execute(connection, sql(QUERIES / "migrations.sql"))) if len(columns) == 2 else {}


def read_kind(connection: Connection, kind: str) -> Objects:
    """Names and normalised definitions of one kind."""
    return kind_of(kind, execute(connection, kind_query(kind)))


def kind_query(kind: str) -> str:
    """The statement that asks for one kind."""
    return sql(QUERIES / f"{kind}.sql")


def kind_of(kind: str, rows: Sequence[Mapping[str, object]]) -> Objects:
    """Names and normalised definitions of one kind, from the answer to its statement."""
    return _bare(kind, {n: normalise(kind, t) for n, t in _named(rows).items()})


def _bare(kind: str, objects: Objects) -> Objects:
    """The definition without the schema `public`; the body of a function is left as written."""
    return {
        OF_PUBLIC.sub("", name): text if kind == "functions" else OF_PUBLIC.sub("", text)
        for name, text in objects.items()
    }


def _named(rows: Sequence[Mapping[str, object]]) -> dict[str, str]:
    return {str(row["name"]): str(row["definition"] or "") for row in rows}


def normalise(kind: str, text: str) -> str:
    """The same text on PostgreSQL 15 to 18: white space folded; in views and policies, column qualifiers dropped."""
    folded = re.sub(r"\s+", " ", text).strip()
    if kind in {"views", "policies"}:
        folded = re.sub(r"\b[a-z_][a-z0-9_]*\.(?=[a-z_\"])(?!jwt\()", "", folded)
    if kind == "views":
        folded = re.sub(r"[()]", "", folded)
    return folded


def other_release(manifest: Manifest, applied: Objects) -> str:
    """Why this database is not of the manifest's release, or an empty string."""
    if not applied and not manifest.migrations:
        return ""  # a deployment that keeps its migrations elsewhere; the manifest was made from one
    if not applied:
        return "public.schema_migrations has no version and checksum: the deployment is not of the manifest's release"
    shared = [v for v, checksum in applied.items() if manifest.migrations.get(v) == checksum]
    if not shared:
        return f"none of the {len(applied)} applied migrations is in the manifest: it belongs to another release"
    return ""


def compare(kind: str, expected: Objects, found: Objects, login: str = "") -> list[Difference]:
    """The differences of one kind, the worst first. login: the gate's own, whose policies and rights (`gate doctor
    --grants`) came after the release or changed since, and are no drift.
    """
    if login and not _is_guarded(login):
        own = {n for n, text in found.items() if _is_of(kind, n, text, login)}
        expected, found = ({n: text for n, text in side.items() if n not in own} for side in (expected, found))
    known = {_object(kind, name) for name in expected}
    differences = [
        Difference(name, before, after, _severity(kind, name, before, after, known=_object(kind, name) in known))
        for name in sorted({*expected, *found})
        if (before := expected.get(name)) != (after := found.get(name))
    ]
    return sorted(differences, key=lambda d: list(Severity).index(d.severity))


def _is_of(kind: str, name: str, text: str, login: str) -> bool:
    """Whether a right, a policy or a tenant's membership is of this login and of nobody else."""
    if kind == "roles":
        return name == login and set(text.removeprefix("member of ").split(", ")) <= {"anon", "authenticated"}
    if kind == "grants":
        return name.endswith(f" to {login}")
    return kind == "policies" and f" to {login} using (" in text


def _object(kind: str, name: str) -> str:
    """The table (or other object) that a named policy or grant is on."""
    if kind == "grants":
        return name.rpartition(" to ")[0]
    return name.rpartition(".")[0] if kind in OF_A_TABLE else name


def _severity(kind: str, name: str, expected: str | None, found: str | None, *, known: bool) -> Severity:
    """How bad a difference is: a weakening is a page, a harmless addition (an object of its own) at most a warn."""
    if kind == "extensions" or (expected is None and not known):
        return Severity.WARN
    if kind == "grants":
        return _grant_severity(name, expected, found)
    if kind == "roles":
        return _role_severity(name, expected, found)
    if kind == "row_security" and found is not None and expected is not None:
        lost = (set(expected.split(", ")) & {"enabled", "forced"}) - set(found.split(", "))
        return Severity.PAGE if lost else Severity.WARN
    if kind == "indexes":
        return Severity.PAGE if "UNIQUE" in (expected or "") else Severity.WARN
    if kind == "policies" and expected is None:
        # permissive policies add up: one more can only show more rows
        return Severity.PAGE if " permissive " in f" {found} " else Severity.WARN
    if kind == "columns" and found is not None and expected is not None:
        same_type = re.split(" default | generated ", expected)[0] == re.split(" default | generated ", found)[0]
        return Severity.WARN if same_type else Severity.PAGE
    return Severity.WARN if expected is None else Severity.PAGE


def _grant_severity(name: str, expected: str | None, found: str | None) -> Severity:
    """More rights for anybody but the gate are a weakening; fewer stop the service, which other checks see."""
    more = set((found or "").split(", ")) - set((expected or "").split(", ")) - {""}
    return Severity.PAGE if more and _is_guarded(name.rpartition(" to ")[2]) else Severity.WARN


def _is_guarded(role: str) -> bool:
    """Whether a role of this real name is guarded."""
    return role in {current().roles.get(r) or r for r in GUARDED}


def _role_severity(name: str, expected: str | None, found: str | None) -> Severity:
    """More power for what tenants or the service run as is a weakening."""
    more = set(re.split(r", |member of ", found or "")) - set(re.split(r", |member of ", expected or "")) - {""}
    return Severity.PAGE if more and _is_guarded(name) else Severity.WARN


def _short(text: str | None, limit: int = 160) -> str:
    text = text or ""
    return text if len(text) <= limit else text[: limit - 1] + "…"
