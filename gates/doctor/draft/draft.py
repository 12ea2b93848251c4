"""Drafts `contract:` and `names:` of gate.yaml from a diagnosis, for review: every guess has a comment. Pure.

The draft names only what was guessed; what has the contract's name needs no line. If two candidates for a table are
equally good, it is left out and both are named.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from gates.contract.contract import Contract
from gates.contract.scope import SERVICE
from gates.decision.floor import on_floor
from gates.doctor.comparison.compare import Presence
from gates.doctor.defects import platform_defaults
from gates.doctor.diagnosis import Diagnosis
from gates.doctor.draft.http import http_lines, limit_lines
from gates.doctor.draft.lines import MOST_COMMENT, Lines, alternatives, comment, guess, scalar, titled
from gates.doctor.draft.queue import queue_lines
from gates.doctor.draft.tables import filling, needed, placed, table_lines
from gates.doctor.matching.actors import FoundMembers, tenant_claim, tenant_members
from gates.doctor.matching.columns import Confidence
from gates.doctor.matching.presets import SERVICE_ROLE, SUPABASE
from gates.doctor.matching.tables import TableMatch
from gates.doctor.reading.schema import SchemaColumn
from gates.doctor.sqltypes import bare, id_type
from gates.text import characters

ID_COLUMNS = {
    "company_id": (("companies", "id"), ("dead_letter_queue", "company_id"), ("event_outbox", "company_id")),
    "event_id": (("events", "id"), ("event_outbox", "event_id"), ("dead_letter_queue", "event_id")),
    "replay_run_id": (("replay_runs", "id"), ("event_outbox", "replay_run_id")),
    "dead_letter_queue.id": (("dead_letter_queue", "id"),),
}
"""Each kind of `names: ids:` -> the columns that hold it, the most telling first."""
DRIFT = "schema"
"""The area that compares a deployment with a manifest."""
UNDER_ALL = "; its part of the proof drill stays due, so nothing is promoted without it (docs/claims.md)"
MOST_OWN = 8
ARGUMENTS = ("key", "company")
PLATFORM_HOLDS = (
    "# Supabase's defaults: no release made them, so they hold, and do not roll back. Mend them by the doctor's SQL,",
    "# then remove these lines.",
    "checks:",
)


def draft(found: Diagnosis, contract: Contract, *, has_manifest: bool = False) -> str:
    """The members `contract` and `names` as YAML, and `checks` where the platform's defaults stand. has_manifest: the
    deployment's own manifest was written beside it.
    """
    parts = ["\n".join(_contract(found, contract, has_manifest=has_manifest))]
    names = [*_names(found, contract)]
    if names:
        parts.append("\n".join([*titled("names:", names), *names]))
    if checks := [*_checks(found)]:
        parts.append("\n".join([*PLATFORM_HOLDS, *checks]))
    return "\n\n".join(parts) + "\n"


def _checks(found: Diagnosis) -> Lines:
    """Platform defaults hold: no release caused them, and no rollback removes them."""
    if any(p.name == SUPABASE for p in found.presets):
        for check, said in platform_defaults(found.comparison):
            yield f"  {check}: {{decides: hold}}{comment(f'sure: {said}')}"


# --- contract ----------------------------------------------------------------------------------------------------


def claims_of(found: Diagnosis, *, has_manifest: bool) -> list[str]:
    """The areas whose objects are all there or mapped, and those that every claim needs. The health of the schema is
    judged against a manifest, so it is claimed only with the deployment's own.
    """
    unseen = {f"{o.kind} {o.name}" for o in found.objects if o.presence is Presence.UNKNOWN}
    whole = [a.area for a in found.coverage if a.area in SERVICE or not set(a.lacking) - unseen]
    return [a for a in whole if a != DRIFT or has_manifest]


def _contract(found: Diagnosis, contract: Contract, *, has_manifest: bool) -> Lines:
    yield "contract:"
    presets = [p for p in found.presets if p.name in contract.presets]
    queues = [p for p in presets if p.name != SUPABASE]
    if queues and not found.looks_like_it:
        yield from queue_lines(queues)
        return
    for queue in queues:
        yield f"  # {queue.title} is here, too ({queue.reason}): a file of its own judges it (--policy FILE)"
    if any(p.name == SUPABASE for p in presets):
        yield f"  preset: {SUPABASE}{comment('the roles and the schema auth are there')}"
    claimed = claims_of(found, has_manifest=has_manifest)
    yield f"  claims: [{', '.join(claimed)}]"
    unseen = {f"{o.kind} {o.name}" for o in found.objects if o.presence is Presence.UNKNOWN}
    for area in found.coverage:
        lacking = [n for n in area.lacking if n not in unseen]
        if area.area not in claimed:
            floor = any(map(on_floor, contract.areas[area.area].checks))
            yield f"  # not claimed: {area.area}{_lacks(lacking)}{UNDER_ALL if floor else ''}"
        elif lacking:
            yield f"  # {area.area} belongs to every claim{_lacks(lacking)}"
        elif area.lacking:
            yield f"  # {area.area}: not seen yet: {characters.one_line(', '.join(area.lacking), MOST_COMMENT)}"


def _lacks(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"; it lacks {', '.join(names[:4])}{more}" if names else ""


# --- names -------------------------------------------------------------------------------------------------------


def _names(found: Diagnosis, contract: Contract) -> Lines:
    tables = found.comparison.tables
    home = home_of(tables.values())
    if tables:
        yield from _schema(found, home)
        yield from _ids(tables, found.comparison.rows.company_form)
        claim = tenant_claim([*tables.values()], found.schema)
        if claim.claim and claim.claim != "company_id":
            said = comment(f"likely: {claim.seen} policies or functions read it")
            yield f"  tenant_claim: {scalar(claim.claim)}{said}"
        elif members := tenant_members(tables, found.schema):
            yield from _members(members, home)
        elif claim.setting:
            said = comment("likely: policies or functions read it, and not request.jwt.claims")
            yield f"  tenant_setting: {scalar(claim.setting)}{said}"
        yield from _token(*found.admin_role)
        yield from _roles(found)
        yield from _functions(found, home)
        mapped = [line for r in contract.relations.values() for line in table_lines(found, r.name, home)]
        yield from _own_tables(found)
        yield from titled("  tables:", mapped) or ["  # tables:"] * bool(mapped)
        yield from mapped
    http = [*http_lines(found)]
    yield from titled("  http:", http)
    yield from http
    yield from limit_lines(found, contract)


def _schema(found: Diagnosis, home: str) -> Lines:
    """Where the tables are; if several schemas are equally good, a person must choose."""
    is_open = any(m.copies and m.confidence is Confidence.PERHAPS for m in found.comparison.tables.values())
    if is_open:
        others = sorted({s for m in found.comparison.tables.values() for s in m.copies} - {home})
        said = comment(f"which is it? {alternatives(others)}", "say it, remove `tables`, and draft again with --force")
        yield f"  # schema: {scalar(home)}{said}"
    elif home != "public":
        yield f"  schema: {scalar(home)}"


def _token(place: str, role: str) -> Lines:
    """The name of the super_admin role, as in ADMIN_JWT."""
    if role and (place, role) not in {("role", "super_admin"), ("role", "company_admin")}:
        at = "" if place == "role" else f"role: {scalar(place)}, "
        said = comment("likely: so says ADMIN_JWT", "add what a company_admin is called")
        yield f"  token: {{{at}roles: {{super_admin: {scalar(role)}}}}}{said}"


def _members(found: FoundMembers, home: str) -> Lines:
    """The table of members on one line: its rows say to which tenant a user belongs."""
    table = found.table
    parts = {"is": placed(table.schema, table.name, home), "company": found.company, "user": found.user}
    said = [f"{name}: {scalar(value)}" for name, value in parts.items()]
    if found.users:
        said.append(f"users: [{', '.join(map(scalar, found.users))}]")
    also = {c.name: filling(c) for c in needed(table, {found.company, found.user})} | dict(found.also)
    if also:
        said.append(f"also: {{{', '.join(f'{scalar(n)}: {scalar(v)}' for n, v in also.items())}}}")
    yield f"  members: {{{', '.join(said)}}}{comment(f'likely: {found.seen} policies or functions read it')}"


def _own_tables(found: Diagnosis) -> Lines:
    """Tables outside the contract that refer to a tenant, and keep it from being deleted; no schema shows which of them
    the service fills.
    """
    known = {m.table.qualified for m in found.comparison.tables.values()}
    companies = found.comparison.tables.get("companies")
    if companies is None:
        return
    told = {
        f"{t.schema}.{t.name}": c.name
        for t in found.schema.tables
        for c in t.columns.values()
        if c.references == companies.table.qualified and not c.cascades and t.qualified not in known
    }
    if told:
        listed = ", ".join([*(f"{scalar(t)}: {scalar(c)}" for t, c in told.items())][:MOST_OWN])
        listed += f", and {len(told) - MOST_OWN} more" if len(told) > MOST_OWN else ""
        yield f"  # own_tables: {{{listed}}}  # they refer to a tenant: say those that the service fills"


def home_of(tables: Iterable[TableMatch]) -> str:
    schemas = Counter(m.table.schema for m in tables)
    return schemas.most_common(1)[0][0] if schemas else "public"


def _ids(tables: Mapping[str, TableMatch], form: str) -> Lines:
    """The types of ids; form: of a company's id, if it is text with one."""
    found = []
    for name, places in ID_COLUMNS.items():
        kinds = [_id_type(tables[t].columns[c].column) for t, c in places if t in tables and c in tables[t].columns]
        kind = next((k for k in kinds if k), "")
        if kind == "text" and name == "company_id" and form != "{uuid}":
            kind = scalar(form or kind)
        if kind and kind != "uuid":
            found.append(f"{name}: {kind}")
    if found:
        yield f"  ids: {{{', '.join(found)}}}{comment('likely: so are the ids of its rows' if form else '')}"


def _id_type(column: SchemaColumn) -> str:
    return "integer" if bare(column.type) in {"integer", "smallint"} else id_type(column.type)


def _roles(found: Diagnosis) -> Lines:
    listed = [o for o in found.objects if o.kind == "role" and o.presence is not Presence.PRESENT]
    lines = []
    for one in listed:
        if one.real == SERVICE_ROLE:
            said = comment(f"not {SERVICE_ROLE}, which passes over row-level security: the login that functions have")
            lines.append(f"    {one.name}: null{said}")
        elif one.real:
            lines.append(f"    {one.name}: {scalar(one.real)}{guess(one)}")
        elif one.presence is Presence.ABSENT:
            lines.append(f"    {one.name}: null{comment('no role like it was found')}")
    if lines:
        yield "  roles:"
        yield from lines


def _functions(found: Diagnosis, home: str) -> Lines:
    renamed = {n: f for n, f in found.comparison.functions.items() if not f.is_own}
    if renamed:
        yield "  functions:"
    for name, one in renamed.items():
        real = placed(one.function.schema, one.function.name, home)
        order = ARGUMENTS[::-1] if one.swapped else ARGUMENTS
        own = ", bucket: own" if found.comparison.rows.own_buckets else ""
        said = f"{{is: {scalar(real)}, arguments: [{', '.join(order)}]{own}}}"
        yield f"    {name}: {said}{comment(f'{one.confidence.word}: {one.reason}', alternatives(one.alternatives))}"
