"""Defects of a deployment planted by SQL: a trigger that meddles, or a function that answers wrongly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from gates.deployment.database import session

TRIGGER = """
create function {name}() returns trigger language plpgsql security definer set search_path = public as $planted$
begin
  {body}
  return {result};
end $planted$;
create trigger {name} {timing} {events} on {table} for each row execute function {name}();
alter table {table} enable always trigger {name};
"""

OWNERS_PATH = "set search_path to public"
"""Who plants writes like the owner of the schema, not like the gate, whose sessions have no schema of the target's."""

UNTRIGGER = """
drop trigger if exists {name} on {table};
drop function if exists {name}();
"""


@dataclass(frozen=True)
class Plant:
    """One defect: statements that plant it and that remove it, and the checks that it turns red."""

    name: str
    on: str
    off: str
    red: tuple[str, ...]
    replaced: str = ""
    """The signature of a function that `on` replaces; its definition is kept and put back."""


def meddler(
    name: str,
    table: str,
    events: str,
    body: str,
    red: Sequence[str],
    *,
    timing: str = "before",
    result: str = "new",
    first: bool = False,
) -> Plant:
    """A row trigger on a table that runs after (or before) all others of its kind."""
    trigger = ("aa_planted_" if first else "zz_planted_") + table
    words = {"name": trigger, "table": table, "timing": timing, "events": events, "body": body, "result": result}
    return Plant(name, TRIGGER.format(**words), UNTRIGGER.format(**words), tuple(red))


def answers(name: str, signature: str, body: str, red: Sequence[str], *, options: str = "") -> Plant:
    """A function of the schema that is replaced by one with another body."""
    head = signature.replace("(", "(", 1)
    on = (
        f"create or replace function public.{head} returns boolean language plpgsql {options or 'stable'}"
        f" security definer set search_path = public as $planted$ {body} $planted$"
    )
    return Plant(name, on, "", tuple(red), replaced=signature)


FLAG = "is_feature_enabled(key text, company uuid)"
BUCKET = "feature_bucket(key text, company uuid)"
PAUSED = "is_company_paused(company uuid)"

WITH_BUCKET = """
declare f record; b integer;
begin
  select * into f from public.feature_flags x where x.key = $1 and x.company_id = $2;
  if not found then select * into f from public.feature_flags x where x.key = $1 and x.company_id is null; end if;
  if not found then return {missing}; end if;
  b := {bucket};
  return {answer};
end
"""


def flag_function(
    missing: str = "coalesce($1 = 'dlq.replay.budget_control', false)",
    bucket: str = "public.feature_bucket($1, $2)",
    answer: str = "f.enabled and b < f.rollout_percentage",
) -> str:
    """The body of is_feature_enabled with one part replaced."""
    return WITH_BUCKET.format(missing=missing, bucket=bucket, answer=answer)


@contextmanager
def planted(url: str, plant: Plant) -> Iterator[None]:
    """Plant a defect for a while."""
    kept = ""
    with session(url) as connection:
        connection.execute(OWNERS_PATH)
        if plant.replaced:
            name = plant.replaced.partition("(")[0]
            row = connection.execute(
                "select pg_get_functiondef(oid) as text from pg_proc where proname = %s", (name,)
            ).fetchone()
            kept = str(row["text"]) if row else ""
        connection.execute(plant.on.encode())
    try:
        yield
    finally:
        # another session: the drill may have restarted the server
        with session(url) as connection:
            connection.execute(OWNERS_PATH)
            connection.execute((kept or plant.off).encode())
