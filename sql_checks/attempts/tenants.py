"""Two tenants: who asks, and whose rows must stay hidden; and how to know these rows again, wherever they are shown."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg

from gates.deployment.sql.database import Connection, execute

ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NOTHING = "x^"
"""Matches no text."""
WORD = re.compile(r'": "([^"\\:]{1,40})"')
"""A value of a row that is neither an object nor a time."""
NOBODY_ELSES = re.compile(rf'"(?:id|event_id|drill)": "({ID.pattern})"')
"""An id that rows of another tenant have by no right."""
ROW_ID = re.compile(rf'"id": (?:"({ID.pattern})"|([0-9]{{1,9}})\b)')


@dataclass(frozen=True, slots=True)
class TwoTenants:
    """Who asks, with which claims, and whose rows must stay hidden. marks: ids in these rows alone; rows: their
    ids by table, words: their other texts. digests: table -> a query of the digest of these rows. own: table or view
    -> a query of what it shows who asks.
    """

    mine: str
    claims: str
    other: str
    marks: Sequence[str]
    rows: Mapping[str, Sequence[str]]
    words: Mapping[str, Sequence[str]]
    digests: Mapping[str, str]
    own: Mapping[str, str]

    def shown(self, name: str, marks: Sequence[str]) -> tuple[str, tuple[str]]:
        """A query, with its values, of the own rows that have a mark."""
        return f"select from ({self.own[name]}) given where said ~ %s", ("|".join(marks) or NOTHING,)


def told_apart(
    mine: str,
    claims: str,
    other: str,
    texts: Mapping[str, Sequence[str]],
    digests: Mapping[str, str],
    own: Mapping[str, str],
) -> TwoTenants:
    """The two, by the texts of both's rows in each table."""
    known, others = (" ".join(both[i] for both in texts.values()) for i in (0, 1))
    marks = {*ID.findall(others)} - {*ID.findall(known)} | {*NOBODY_ELSES.findall(others)} - {mine, other}
    rows = {table: [a or b for a, b in ROW_ID.findall(both[1])] for table, both in texts.items()}
    words = {table: sorted({w for w in WORD.findall(both[1]) if not ID.match(w)}) for table, both in texts.items()}
    return TwoTenants(mine, claims, other, sorted(marks - {mine, other}), rows, words, digests, own)


def rows_of(connection: Connection, relation: str, tenant: str, company: str) -> str:
    """The text of a tenant's rows."""
    query = f"select to_jsonb(t)::text as row from {relation} t where {tenant} = %s limit 200"
    try:
        with connection.transaction():
            return " ".join(str(row["row"]) for row in execute(connection, query, company))
    except psycopg.Error:
        if connection.closed:
            raise
        return ""


def text_of(relation: str, tenant: str, company: str) -> str:
    """A query of the texts of a tenant's rows."""
    return f"select r::text as said from {relation} r where {tenant} = '{company}'"


def digest_of(relation: str, tenant: str) -> str:
    """A query of the digest of a tenant's rows."""
    rows = f"select to_jsonb(t)::text as row from {relation} t where {tenant} = %s"
    return f"select md5(coalesce(string_agg(row, '' order by row), '')) as digest from ({rows}) rows"
