"""Presets of queues: what a library's tables say of its jobs, as data (sql_checks/queues/*.yaml).

A notion (waiting, running, finished, ...) is a subquery that every preset writes for its own tables. The checks of
queues use only notions. What a system lacks is `absent`, with the reason.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from psycopg.sql import Identifier

from gates.contract.fragments import expand
from gates.contract.scope import Scope
from gates.text.own_data import data_of

FOLDER = Path(__file__).resolve().parents[2] / "sql_checks" / "queues"
RULES = "rules"
"""The file of that folder with the checks; it is no preset."""

NOTIONS: Mapping[str, str] = {
    "waiting": "jobs that are due and free to be claimed: queue, tenant, since",
    "behind": "jobs that are due, behind a claimed one of their lane: queue, tenant, since",
    "running": "claimed jobs: queue, tenant, since, id, stuck",
    "finished": "jobs that ended within ten minutes: queue, tenant, at, good, lag_s (from due to claimed)",
    "outcomes": "the same, where failures show, too",
    "lags": "the same, where the time from due to claimed shows",
    "dead": "jobs that failed for good within ten minutes: queue, tenant, at",
    "parked": "all dead letters that were not replayed: queue, tenant, since",
    "retried": "jobs that failed within ten minutes and are tried again: queue, tenant, at",
    "tried": "jobs that wait or run: queue, tenant, id, times (tried), most (tries it may have, where that is known)",
    "workers": "workers that are listed: worker, alive",
    "schedulers": "those who start scheduled jobs: scheduler, alive, seen (its last sign of life)",
    "repeated": "jobs that succeeded more than once: queue, tenant, id",
    "lost": "jobs that vanished before their end, or that no worker will take: queue, tenant, id",
    "ahead": "times of jobs and workers in the future that are no wish, or beyond a year, or out of order: queue, at",
    "delayed": "jobs of the last ten minutes: queue, tenant, later (due in the future)",
    "paused": "paused queues: queue",
    "indexes": "definitions that claims rest on: name (of the table), pattern, never",
    "builds": "builds of indexes that the library knows to be unfinished: name",
}
VIEWS = ("outcomes", "lags")
"""Notions that default to `finished`."""
OF_SUCCESS = ("finished", *VIEWS, "repeated", "delayed")
"""Notions that show nothing, or only failures, if successes are deleted."""
LATE = "(select count(*) as n from {{waiting}} w where since < now() - interval '30 seconds')"
"""The check of how many jobs wait for longer than any living worker lets them."""
DRAINING = FOLDER.parent / "alerts" / "fragments" / "draining.sql"
"""The check of a falling backlog: for a queue as for the outbox."""
JOB_NOTIONS = frozenset(NOTIONS) - {"workers", "schedulers", "builds", "indexes"}
NEED = "queue:"
"""Prefix of a notion in the `needs` of a check."""


@dataclass(frozen=True, slots=True)
class Wording:
    """One SQL wording: for a schema that has the columns `when`, or absent up to the version `until`."""

    sql: str = ""
    when: tuple[str, ...] = ()
    absent: str = ""
    until: int | None = None


TYPES: Mapping[str, str] = {
    "instant": r"timestamp(\(\d\))? with time zone",
    "utc": r"timestamp(\(\d\))? without time zone",
    "time": "timestamp",
    "number": "(smallint|integer|bigint)",
}
"""Types of columns by the words of a preset; any other word is the type itself, in any schema."""


@dataclass(frozen=True, slots=True)
class WantedDefinition:
    """What claims rely on, as a regular expression on its definition.

    That is an index, a constraint, a trigger, or a column as `COLUMN name type NOT NULL FILLED` (by a default or an
    identity). The definition of a part of a partitioned table also has `PARTITION`. unlike: what it must not match.
    """

    table: str
    like: str
    unlike: str = ""
    when: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobProbe:
    """How a job is enqueued, looked at, and removed if nobody has claimed it. names: what the policy calls a job by (a
    queue, a task). counts: whether `look` sees how often it succeeded.
    """

    names: str
    enqueue: str
    look: str
    remove: str = ""
    counts: bool = False


@dataclass(frozen=True, slots=True)
class QueuePreset:
    """One library.

    prefix: of its tables, if they can have one: its default. known: tested versions, both inclusive. heap: tables that
    its workers scan. deletes: those whose rows success deletes. passed: if the producer deletes them, whether what was
    logged after `mark` was delivered. kept: if a deployment may delete successes, whether there is one.
    """

    name: str
    title: str
    tried: str
    schema: str
    tenant: str
    tables: Mapping[str, tuple[str, ...]]
    heap: tuple[str, ...]
    notions: Mapping[str, str]
    absent: Mapping[str, str]
    grants: tuple[str, ...]
    prefix: str | None = None
    grants_since: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    known: tuple[int, int] | None = None
    deletes: tuple[str, ...] = ()
    pieces: Mapping[str, str] = field(default_factory=dict)
    either: Mapping[str, tuple[Wording, ...]] = field(default_factory=dict)
    claim_index: tuple[WantedDefinition, ...] = ()
    limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    probe: JobProbe | None = None
    passed: str = ""
    kept: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """The job that the gate may enqueue. statement: the user's own, which returns the job's `id`. rate: jobs per second
    for `seconds`; without it one job is the proof, and there is no load.
    """

    name: str = ""
    queue: str = "default"
    payload: Mapping[str, Any] = field(default_factory=dict)
    statement: str = ""
    within_s: float = 10
    rate: float | None = None
    seconds: float = 10


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """What gate.yaml says of a queue. tenant: SQL over the job `j`; limits: check -> severity -> number."""

    schema: str = ""
    prefix: str = ""
    tenant: str = ""
    max_run_time_s: float | None = None
    leave_out: tuple[str, ...] = ()
    limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    probe: ProbeOptions | None = None
    observe_s: float = 30


@dataclass(frozen=True, slots=True)
class QueueSchema:
    """What the catalogue says of a queue's tables: table -> its columns, and the version. forgets: successes are
    deleted here, though the library can keep them.
    """

    columns: Mapping[str, frozenset[str]]
    version: int | None = None
    forgets: bool = False

    def has(self, wanted: Sequence[str]) -> bool:
        return all(column in self.columns.get(table, ()) for table, _, column in (w.rpartition(".") for w in wanted))


@dataclass(frozen=True, slots=True)
class Queue:
    """A preset with the options of one deployment."""

    preset: QueuePreset
    options: QueueOptions = QueueOptions()

    @property
    def schema(self) -> str:
        return self.options.schema or self.preset.schema

    @property
    def prefix(self) -> str:
        return self.options.prefix or self.preset.prefix or ""

    def named(self, text: str) -> str:
        """The text with schema and prefix filled in."""
        return text.replace("{{schema}}", identifier(self.schema)).replace("{{prefix}}", self.prefix)

    def tables(self) -> dict[str, tuple[str, ...]]:
        """Tables that are read -> required columns."""
        return {self.named(table): columns for table, columns in self.preset.tables.items()}

    def absent(self, schema: QueueSchema | None = None) -> dict[str, str]:
        """Notions that the system lacks -> the reason; with a schema, also those that its version lacks."""
        found = dict(self.preset.absent)
        found |= {view: found["finished"] for view in VIEWS if "finished" in found}
        if not self.preset.claim_index:
            found["indexes"] = "nothing is known that its work rests on"
        for name, choices in self.preset.either.items():
            choice = self._chosen(choices, schema) if schema is not None else None
            if choice is not None and choice.absent:
                found[name] = choice.absent
        if schema is not None and schema.forgets:
            found = dict.fromkeys(self._of_success, "what succeeds is deleted here") | found
        return found

    @property
    def _of_success(self) -> tuple[str, ...]:
        return OF_SUCCESS if self.preset.kept else ()

    @property
    def may_lack(self) -> tuple[str, ...]:
        """Notions that an older version, or a deployment that deletes successes, is known to lack."""
        old = tuple(n for n, wordings in self.preset.either.items() if any(w.absent for w in wordings))
        return (*old, *(n for n in self._of_success if n not in self.absent()))

    def scoped(self, scope: Scope) -> Scope:
        """The scope of a deployment with this queue: what it lacks is not applicable."""
        absent = {f"{NEED}{notion}": why for notion, why in self.absent().items()}
        probe, way = self.options.probe, self.preset.probe
        if probe is None or probe.rate is None:
            absent[f"{NEED}load"] = "the policy gives no job and rate to load it with (`probe` in `contract: options:`)"
        if way is None or not way.counts:
            absent[f"{NEED}counted"] = f"{self.preset.title} does not show how often a job succeeded"
        may_lack = tuple(f"{NEED}{notion}" for notion in self.may_lack)
        return replace(scope, queue=self.to_json(), absent=tuple(sorted(absent.items())), may_lack=may_lack)

    def fragments(self, schema: QueueSchema | None = None) -> dict[str, str]:
        """The pieces of SQL by name; without a schema those of the newest version."""
        preset, options = self.preset, self.options
        found = {
            "schema": identifier(self.schema),
            "schema_text": literal(self.schema),
            "prefix": self.prefix,
            "tenant": f"({options.tenant})::text" if options.tenant else "null::text",
            "left_out": f"array[{', '.join(literal(name) for name in options.leave_out)}]::text[]",
            "max_run_time": interval(options.max_run_time_s),
            "any": f"{identifier(self.schema)}.{identifier(next(iter(self.tables())))}",
            "heap_tables": self._names(preset.heap),
            "own_tables": self._names(sorted({*preset.heap, *preset.tables, *(w.table for w in preset.claim_index)})),
            "deleting_tables": self._names(preset.heap[:1] if schema and schema.forgets else preset.deletes),
            "indexes": self._wanted(schema),
            "unvalidated": "array[]::text[]",
            "numbers": "(values (null::text, null::bigint))",
            "draining": DRAINING.read_text(encoding="utf-8"),
            "late": LATE if "waiting" in preset.notions else "(select 0 as n)",
            **preset.pieces,
        }
        for name, choices in preset.either.items():
            choice = self._chosen(choices, schema) if schema is not None else choices[0]
            if choice is not None and choice.sql:
                found[name] = choice.sql
        for notion in NOTIONS:
            written = "finished" if notion in VIEWS else notion
            body = preset.notions.get(written) or (found.get(written) if written in preset.either else None)
            if body:
                found[notion] = self._watched(body.strip(), notion)
        return {name: text.strip() for name, text in found.items()}

    def written(self, query: str, schema: QueueSchema | None = None, **given: str) -> str:
        """The query with its notions and pieces filled in. Raise FragmentError if this queue lacks a notion."""
        return expand(
            query, (FOLDER / "fragments", FOLDER.parent / "spot" / "fragments"), {**self.fragments(schema), **given}
        )

    def _watched(self, body: str, notion: str) -> str:
        """The notion as a subquery, without the queues that the policy excludes."""
        names = ", ".join(literal(name) for name in self.options.leave_out)
        if not names or notion not in JOB_NOTIONS:
            return f"(\n{body}\n)"
        return f"(\nselect * from (\n{body}\n) watched where (queue = any(array[{names}])) is not true\n)"

    def _chosen(self, choices: Sequence[Wording], schema: QueueSchema | None) -> Wording | None:
        for choice in choices:
            old = choice.until is None or (schema is not None and (schema.version or 0) <= choice.until)
            if old and (schema is None or schema.has([self.named(w) for w in choice.when])):
                return choice
        return None

    def _names(self, tables: Sequence[str]) -> str:
        return f"array[{', '.join(literal(self.named(table)) for table in tables)}]::text[]"

    def _wanted(self, schema: QueueSchema | None) -> str:
        wanted = [
            w
            for w in self.preset.claim_index
            if schema is None or not w.when or schema.has([self.named(c) for c in w.when])
        ]
        rows = ", ".join(f"({literal(self.named(w.table))}, {literal(w.like)}, {literal(w.unlike)})" for w in wanted)
        none = "(select null::text, null::text, null::text where false)"
        source = f"(values {rows})" if rows else none
        return f"(select name, pattern, nullif(never, '') as never from {source} v(name, pattern, never))"

    def to_json(self) -> str:
        """One line that `queue_of` reads again."""
        return json.dumps({"preset": self.preset.name, "options": asdict(self.options)}, ensure_ascii=False)


def queue_of(text: str) -> Queue:
    """What `to_json` wrote. Raise KeyError, TypeError or ValueError on anything else."""
    data = json.loads(text)
    options = data["options"]
    probe = ProbeOptions(**options["probe"]) if options.get("probe") else None
    return Queue(
        presets()[data["preset"]],
        QueueOptions(**{**options, "probe": probe, "leave_out": tuple(options.get("leave_out", ()))}),
    )


@functools.cache
def presets() -> Mapping[str, QueuePreset]:
    paths = (p for p in sorted(FOLDER.glob("*.yaml")) if p.stem != RULES)
    return {p.stem: _preset(p.stem, data_of(p)) for p in paths}


def _preset(name: str, data: Mapping[str, Any]) -> QueuePreset:
    version = data.get("version") or {}
    made: dict[str, Any] = {
        **{k: v for k, v in data.items() if k != "columns"},
        **{k: tuple(data[k]) for k in ("heap", "deletes", "grants", "notes") if k in data},
        "name": name,
        "absent": data.get("absent", {}),
        "tables": {table: tuple(columns) for table, columns in data["tables"].items()},
        "version": version.get("query", ""),
        "known": tuple(version["known"]) if "known" in version else None,
        "either": {
            k: tuple(Wording(**{**c, "when": tuple(c.get("when", ()))}) for c in v)
            for k, v in data.get("either", {}).items()
        },
        "claim_index": (
            *(WantedDefinition(**{**w, "when": tuple(w.get("when", ()))}) for w in data.get("claim_index", ())),
            *_columns(data.get("columns", {})),
        ),
        "probe": JobProbe(**data["probe"]) if "probe" in data else None,
    }
    return QueuePreset(**made)


def _columns(tables: Mapping[str, Mapping[str, Sequence[str]]]) -> Iterator[WantedDefinition]:
    """The required columns: table -> type, with its suffix (`not null`, `not null filled`) -> columns."""
    for table, kinds in tables.items():
        for kind, columns in kinds.items():
            word, _, more = kind.partition(" ")
            like = TYPES.get(word, rf'(?:".*"\.)?\S*{word}\M') + (f".* {more.upper()}" if more else "")
            yield from (
                WantedDefinition(table, f"^COLUMN {column} {like}", when=(f"{table}.{column}",)) for column in columns
            )


def identifier(name: str) -> str:
    """The name in SQL, quoted: it may be a keyword."""
    return Identifier(name).as_string()


def literal(text: str) -> str:
    quoted = "'" + text.replace("'", "''") + "'"
    return f" E{quoted.replace(chr(92), chr(92) * 2)}" if "\\" in text else quoted


def interval(seconds: float | None) -> str:
    """An SQL interval; null for none."""
    return "null::interval" if seconds is None else f"interval '{seconds:g} seconds'"
