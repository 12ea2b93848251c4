"""How a fault is planted in the database: a trigger that meddles with rows, or a function with another body."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from faults.altered import Change, rewrite
from faults.catalogue import Fault, Kind, Witness, declare, sentence
from replay_service import migrate

TRIGGER = """
create function {name}() returns trigger language plpgsql security definer set search_path = public as $planted$
begin
  {body}
  return new;
end $planted$;
create trigger {name} {timing} {on} for each row execute function {name}();
alter table {table} enable always trigger {name};
"""
UNTRIGGER = "drop trigger if exists {name} on {table}; drop function if exists {name}();"


def meddling(name: str, on: str, body: str, timing: str = "before") -> tuple[str, str]:
    """A row trigger (on: `insert or update on TABLE`) and its removal."""
    words = {"name": name, "on": on, "table": on.rpartition(" on ")[2], "body": body, "timing": timing}
    return TRIGGER.format(**words), UNTRIGGER.format(**words)


def trigger(
    fault_id: str,
    on: str,
    body: str,
    checks: tuple[str, ...],
    breaks: str = "",
    *,
    timing: str = "before",
    first: bool = False,
    **more: Any,
) -> Fault:
    """Declare a row trigger as a fault, which runs after all others of its kind (`first`: before them)."""
    name = f"{'aa' if first else 'zz'}_planted_{fault_id.rpartition('/')[2].replace('-', '_')}"[:63]
    sql, undo = meddling(name, on, body, timing)
    return planted(fault_id, sql, undo, f"from pg_trigger where tgname = '{name}'", checks, breaks, **more)


def function(fault_id: str, name: str, sql: str, checks: tuple[str, ...], breaks: str = "", **more: Any) -> Fault:
    """Declare another body of a function of the schema as a fault: `released` with changes, or `yes_or_no`."""
    undo = released(name)
    right = hashlib.md5(undo.partition("$$")[2].rpartition("$$")[0].encode(), usedforsecurity=False).hexdigest()
    return planted(
        fault_id,
        sql,
        undo,
        f"from pg_proc where proname = '{name}' and md5(prosrc) <> '{right}'",
        checks,
        breaks,
        **more,
    )


def yes_or_no(name: str, body: str) -> str:
    """A function of the schema with this body in PL/pgSQL instead of its own."""
    head = released(name).partition(" RETURNS ")[0]
    return (
        f"{head} returns boolean language plpgsql stable security definer set search_path = public"
        f" as $planted$ begin {body} end $planted$"
    )


def planted(
    fault_id: str, sql: str, undo_sql: str, shows: str, checks: tuple[str, ...], breaks: str = "", **more: Any
) -> Fault:
    """Declare statements on the schema as a fault; it is on while `select count(*) {shows}` finds something."""
    kind: Kind = "trigger"
    on: Witness = lambda probe: bool(probe.value(f"select count(*) {shows}"))  # noqa: E731
    said = breaks or sentence(fault_id)
    return declare(Fault(fault_id, said, kind, on, sql=sql, undo_sql=undo_sql, checks=checks, **more))


@cache
def released(name: str, *changes: Change) -> str:
    """The statement that makes a function of the schema what it is in a release, with these changes."""
    for file in sorted((Path(migrate.__file__).parent / "migrations").glob("*.sql"), reverse=True):
        _, found, rest = file.read_text(encoding="utf-8").partition(f"CREATE FUNCTION public.{name}(")
        if found:
            text = f"CREATE OR REPLACE FUNCTION public.{name}({rest.partition('$$;')[0]}$$"
            return rewrite(text.encode(), *changes).decode()
    raise ValueError(f"no migration makes {name}; mend the fault")
