"""Compares the migrated schema with the contract, as `gate doctor` does with a deployment. Rows are not looked at:
which flags there are is known only in the deployment. Objects of the platform are left out.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from gates.contract.contract import contract
from gates.deployment.sql.database import connect
from gates.doctor.comparison.compare import NOT_SEEN, ComparedObject, Presence, compare
from gates.doctor.defects import Defect, defects
from gates.doctor.diagnosis import WORTH_MENDING
from gates.doctor.matching.tables import GENERIC, guessed_tables
from gates.doctor.reading.catalogue import read_schema
from gates.errors import CannotWork
from gates.rehearsal.postgres.presets import OF_SUPABASE

MOST_NAMED = 12
_ANYWHERE = GENERIC | {"feature_flags", "edge_rate_limits"}
"""A schema with only these is that of any application: it is not compared with the contract."""
_OF_PLATFORMS = OF_SUPABASE | {"cron", "net", "pgmq", "graphql", "graphql_public"}


@dataclass(frozen=True, slots=True)
class ContractView:
    """Every object of the contract that a schema can have, and the defects worth mending, the most harmful first.

    `tables`: how many of the `wanted` contract tables exist, under any name. `alike`: whether a likely one among them
    is rare in other applications, so that the comparison means something.
    """

    objects: tuple[ComparedObject, ...]
    defects: tuple[Defect, ...]
    tables: int
    wanted: int
    alike: bool

    def lines(self) -> Iterator[str]:
        """A sentence, and one line a defect."""
        if not self.alike:
            yield "the contract: nothing here looks like its tables, so nothing was compared"
            return
        counts = Counter(o.presence for o in self.objects)
        said = ", ".join(f"{counts[p]} {p.value}" for p in Presence if counts[p] and p is not Presence.UNKNOWN)
        yield f"the contract: {self.tables} of its {self.wanted} tables are here; of its objects {said}"
        for presence in (Presence.DIFFERS, Presence.ABSENT):
            named = [f"{o.kind} {o.name}" for o in self.objects if o.presence is presence]
            more = f" and {len(named) - MOST_NAMED} more; --json has them all" * (len(named) > MOST_NAMED)
            if named:
                yield f"  {presence.value}: {', '.join(named[:MOST_NAMED])}{more}"
        for one in self.defects:
            yield f"  {one.subject}: {one.seen}. {' '.join(p for p in (one.condition, one.cost) if p)}"
            yield f"  Do: {one.remedy}"

    def to_json(self) -> dict[str, Any]:
        """The same as data."""
        objects = [
            {"kind": o.kind, "name": o.name, "presence": o.presence.value, "here": o.real, "detail": o.detail}
            for o in self.objects
            if o.presence is not Presence.UNKNOWN
        ]
        found = [
            {"subject": d.subject, "harm": d.harm, "seen": d.seen, "guess": d.guess, "cost": d.cost, "remedy": d.remedy}
            for d in self.defects
        ]
        return {"tables": self.tables, "wanted": self.wanted, "alike": self.alike, "objects": objects, "defects": found}


def view(url: str) -> ContractView:
    """Look at the database of the URL. Raise CannotWork if its catalogue cannot be read."""
    wanted = contract()
    try:
        with contextlib.closing(connect(url, read_only=True)) as connection:
            read = read_schema(connection, wanted)
    except psycopg.Error as error:
        raise CannotWork(f"the schema that the migrations made could not be read: {error}") from error
    schema = replace(read, tables=tuple(t for t in read.tables if t.schema not in _OF_PLATFORMS))
    guessed = guessed_tables(schema, wanted, None)
    compared = compare(schema, wanted, None, NOT_SEEN, guessed)
    found = defects(schema, compared, wanted, NOT_SEEN, None, "")
    worth = [d for d in found if d.harm >= WORTH_MENDING and d.subject not in OF_SUPABASE]
    alike = any(m.is_likely for n, m in compared.tables.items() if n not in _ANYWHERE)
    return ContractView(
        compared.objects,
        tuple(worth) if alike else (),
        sum(not m.relation.is_view for m in compared.tables.values()),
        sum(not r.is_view for r in wanted.relations.values()),
        alike,
    )
