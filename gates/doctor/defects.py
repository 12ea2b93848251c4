"""The real defects among the differences, the most harmful first: what was seen, what it costs, what to do. Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from gates.contract.contract import Contract
from gates.doctor.comparison.compare import ComparedObject, Comparison, Presence, RowsSeen
from gates.doctor.comparison.http import HttpComparison
from gates.doctor.comparison.rules import NOT_FORCED, WRITES, wider_key
from gates.doctor.matching.actors import edited_claims
from gates.doctor.matching.columns import Confidence
from gates.doctor.matching.presets import SERVICE_ROLE
from gates.doctor.matching.tables import TableMatch
from gates.doctor.reading.schema import Schema, SchemaRole, SchemaTable, quoted
from gates.text.foreign import text


@dataclass(frozen=True, slots=True)
class Defect:
    """harm: from 100 (every tenant's data is open) to 1. subject: the real name of what is wrong. guess: the mapping
    guess that it depends on; empty if none.
    """

    harm: int
    subject: str
    seen: str
    cost: str
    remedy: str
    guess: str = ""

    @property
    def condition(self) -> str:
        """The guess in a sentence; empty if there is none."""
        return f"Only if {self.guess}: decide that first (`names:` in gate.yaml)." if self.guess else ""


LOGIN_OF_ITS_OWN = (
    "service_role is the platform's and stays as it is: let the functions log in as a role of their own (noinherit, "
    "with rights and policies for what they do), and keep the service key out of what users call"
)
OFF_WHERE_MISSING = "security.signing_v2_required"
"""A flag without a row counts as off: v1 signatures are the contract's own."""
KEYS = {
    "replay_runs(idempotency_key, company_id)": (90, "The same replay runs twice when a caller sends it again."),
    "agent_tasks(event_id)": (82, "An event that is delivered twice has its effect twice."),
    "feature_flags(key, company_id)": (76, "Two rows can answer for one flag: a rollback switches one of them off."),
    "agent_controls(company_id)": (74, "Two rows can answer for one pause: ending it ends one of them."),
    "edge_rate_limits(key)": (66, "Two rows can count one caller, who then has twice the limit."),
    "replay_budgets(company_id)": (64, "Two rows can hold one tenant's budget, who then has twice of it."),
    "audit_heads(scope)": (58, "A chain of the audit trail can fork, and a removed row goes unseen."),
}
"""What a missing unique key means, by the contract's name of it."""


def defects(
    schema: Schema,
    comparison: Comparison,
    contract: Contract,
    rows: RowsSeen,
    http: HttpComparison | None,
    rollout_flag: str,
    claims: Callable[[str], bool] = bool,
) -> list[Defect]:
    """Every defect, the most harmful first, those that depend on a guess last. What is completely absent is no defect:
    it is not claimed. claims: whether an area is claimed.
    """
    found = [
        *_row_security(comparison),
        *_roles(comparison),
        *_rights(comparison),
        *_claims(schema, comparison),
        *_keys(comparison),
        *_columns(comparison),
        *_flags(comparison, rows, rollout_flag, claims),
        *_audit(comparison),
        *_login(schema, comparison),
        *_over_http(http, contract),
    ]
    return _together(sorted(found, key=lambda d: (bool(d.guess), -d.harm, d.subject)))


def _together(found: Sequence[Defect]) -> list[Defect]:
    """One entry for the same defect of several objects, with all remedies."""
    alike: dict[tuple[bool, int, str, str], list[Defect]] = {}
    for one in found:
        alike.setdefault((bool(one.guess), one.harm, one.seen, one.cost), []).append(one)
    made = []
    for same in alike.values():
        remedies = [*dict.fromkeys(one.remedy for one in same)]
        subjects, remedy = _listed([one.subject for one in same]), "; ".join(remedies)
        guess = "; ".join(dict.fromkeys(one.guess for one in same))
        made.append(replace(same[0], subject=subjects, remedy=remedy, guess=guess))
    return made


def _guess(found: TableMatch, columns: Iterable[str] = ()) -> str:
    """Which of a table and these columns of it are guesses; empty where none is."""
    name, real = found.relation.name, found.table
    said = []
    if not found.has_own_name and found.confidence < Confidence.SURE:
        said.append(f"{real.qualified} is {name} ({found.confidence.word})")
    for column in columns:
        one = found.columns.get(column)
        if one and one.column.name != column and one.confidence < Confidence.SURE:
            said.append(f"{one.column.name} is {name}.{column} ({one.confidence.word})")
    return " and ".join(said)


def _listed(subjects: Sequence[str]) -> str:
    return ", ".join(subjects[:4]) + (f" and {len(subjects) - 4} more" if len(subjects) > 4 else "")


def _row_security(comparison: Comparison) -> Iterator[Defect]:
    for one in comparison.objects:
        if one.kind != "row security" or one.presence is not Presence.DIFFERS:
            continue
        found = comparison.tables[one.name]
        table, written, guess = found.table.qualified, found.table.quoted, _guess(found)
        if NOT_FORCED in one.detail:
            harm = 60
            cost = "Whoever logs in as the owner, or runs a function of the owner, sees every tenant's rows."
            remedy = f"alter table {written} force row level security"
        elif one.detail.endswith("security is off"):
            harm = 100
            cost = "Every tenant reads every other tenant's rows, where tenants reach the table."
            remedy = f"alter table {written} enable row level security, force row level security"
            remedy += "; and a policy for tenants"
        else:
            done = "reads" if WRITES not in one.detail else "writes, where it holds the right,"
            harm, cost = 98, f"Every tenant {done} every other tenant's rows."
            remedy = "Let the policy compare the tenant"
        yield Defect(harm, table, one.detail, cost, remedy, guess)


def _roles(comparison: Comparison) -> Iterator[Defect]:
    for name, one in comparison.roles.items():
        power = "is a superuser" if one.role.superuser else "has BYPASSRLS" if one.role.bypasses else ""
        if power:
            yield Defect(
                96 if name in {"anon", "authenticated"} else 88,
                one.role.name,
                f"the role that stands for {name} {power}",
                "Row-level security does not hold for it: one mistake in a query shows every tenant's rows.",
                LOGIN_OF_ITS_OWN
                if one.role.name == SERVICE_ROLE
                else f"alter role {quoted(one.role.name)} nosuperuser nobypassrls",
                "" if one.confidence is Confidence.SURE else f"{one.role.name} is {name} ({one.confidence.word})",
            )


def _claims(schema: Schema, comparison: Comparison) -> Iterator[Defect]:
    for claim in edited_claims([*comparison.tables.values()], schema):
        yield Defect(
            97,
            claim,
            "a policy, or a function that reads the caller's claims, takes the tenant from it",
            "Users edit this metadata themselves: any user becomes another tenant's.",
            "Read app_metadata, or a table of members, instead",
        )


def _rights(comparison: Comparison) -> Iterator[Defect]:
    for found, holders in _truncators(comparison):
        who = ", ".join(map(quoted, holders))
        yield Defect(
            63,
            found.table.qualified,
            f"{', '.join(holders)} may empty it by TRUNCATE",
            "Row-level security does not bind TRUNCATE: one statement wipes every tenant.",
            f"revoke truncate, references, trigger on {found.table.quoted} from {who}",
            _guess(found),
        )


def _truncators(comparison: Comparison) -> Iterator[tuple[TableMatch, list[str]]]:
    """Tables that tenants may empty, and the roles that allow it."""
    tenants = {comparison.roles[n].role.name for n in ("anon", "authenticated") if n in comparison.roles} | {"public"}
    for one in comparison.tables.values():
        holders = sorted(tenants & {*one.table.truncators})
        if holders and not one.table.is_view:
            yield one, holders


def platform_defaults(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """Supabase's default rights on new tables, unless revoked: the check that sees them, and what they are."""
    if any(one.kind == "row security" and NOT_FORCED in one.detail for one in comparison.objects):
        yield "sql/spot/rls-forced", "row-level security is not forced"
    if any(_truncators(comparison)):
        yield "sql/spot/tenants-cannot-truncate", "tenants hold TRUNCATE"


def _keys(comparison: Comparison) -> Iterator[Defect]:
    for one in comparison.objects:
        if one.kind != "key" or one.presence is not Presence.DIFFERS:
            continue
        relation, _, columns = one.name.rstrip(")").partition("(")
        found = comparison.tables[relation]
        table, guess = found.table, _guess(found, columns.split(", "))
        harm, cost = KEYS.get(one.name, (40, "Two rows can stand for one thing."))
        if one.detail.startswith("unique over"):
            cost = "Tenants share their keys: one tenant's request is taken for a repetition of another's."
        yield Defect(harm, table.qualified, one.detail, cost, _key_remedy(one, table, guess), guess)


def _key_remedy(one: ComparedObject, table: SchemaTable, guess: str) -> str:
    """A constraint, only if nothing is guessed and there is no wider key, which it would break."""
    named = (one.real or one.name.partition("(")[2].rstrip(")")).split(", ")
    wider = wider_key(table, named)
    if guess or wider:
        also = f"; unique is ({', '.join(map(quoted, wider))})" if wider else ""
        return f"See what keeps two rows of {table.quoted} from standing for one thing{also}"
    nulls = " nulls not distinct" if "null" in one.detail else ""
    return f"alter table {table.quoted} add unique{nulls} ({', '.join(map(quoted, named))}), once no two rows are alike"


def _columns(comparison: Comparison) -> Iterator[Defect]:
    for one in comparison.objects:
        if one.kind != "column" or one.presence is not Presence.DIFFERS:
            continue
        relation, _, column = one.name.partition(".")
        found = comparison.tables[relation]
        real = f"{found.table.qualified}.{found.columns[column].column.name}"
        guess = _guess(found, [column])
        if "without time zone" in one.detail:
            harm = 45
            cost = "A session in another time zone reads and writes other moments: retries and windows shift by hours."
            remedy = "alter its type to timestamptz, using the column at time zone 'UTC'"
        elif "NOT NULL" in one.detail:
            harm, cost = 50, "There is no switch for everybody at once."
            remedy = "Allow null, with a key that holds for it"
        else:
            harm, cost = 20, "Checks that use it cannot be judged."
            remedy = "Map it by `values` or an expression, or change it"
        yield Defect(harm, real, one.detail, cost, remedy, guess)


def _flags(
    comparison: Comparison, rows: RowsSeen, rollout_flag: str, claims: Callable[[str], bool]
) -> Iterator[Defect]:
    if rows.flags is not None:
        found = comparison.tables["feature_flags"]
        table, guess = found.table.qualified, _guess(found, ["key", "company_id"])
        if rollout_flag not in rows.flags and not _renamed_flag(comparison, rollout_flag):
            yield Defect(
                72,
                f"{table}: {rollout_flag}",
                "there is no global row of the flag that the release is behind",
                "The gate can neither step the release forward nor switch it off.",
                f"Insert the row, off; or name the release's flag in gate.yaml (rollout: flag). There are: "
                f"{text(', '.join(sorted(rows.flags)[:8]), 300) or 'none'}",
                guess,
            )
        for one in comparison.objects:
            of_nothing = one.area == "budgets" and "replay_budgets" not in comparison.tables
            if not claims(one.area) or of_nothing or one.name in {rollout_flag, OFF_WHERE_MISSING}:
                continue
            if one.kind == "flag" and one.presence is Presence.ABSENT:
                yield Defect(
                    30,
                    f"{table}: {one.real or one.name}",
                    "there is no global row of this flag",
                    "What it switches cannot be switched off by hand.",
                    f"Insert the row with the state that the service behaves by now; where the service knows it by "
                    f"another key, name that (names: tables: feature_flags: values: key), or do not claim {one.area}",
                    guess,
                )
    if rows.has_pause_row is False:
        paused = comparison.tables["agent_controls"]
        yield Defect(
            70,
            paused.table.qualified,
            "there is no row for everybody (its tenant is null)",
            "In an emergency the agents cannot be paused by an update: it changes no row, and nobody notices.",
            "Insert the row with a null tenant, not paused",
            _guess(paused, ["company_id"]),
        )


def _renamed_flag(comparison: Comparison, key: str) -> bool:
    found = comparison.of("flag", key)
    return found is not None and found.presence is Presence.RENAMED


def _audit(comparison: Comparison) -> Iterator[Defect]:
    found = comparison.tables.get("audit_logs")
    if "triggers" in comparison.unread or found is None or found.table.is_view:
        return
    if not found.table.refuses_changes:
        yield Defect(
            62,
            found.table.qualified,
            "no trigger fires on UPDATE, DELETE and TRUNCATE of the audit trail",
            "Whoever may write to it can change what it says, and nothing shows it.",
            "Add triggers that refuse all three, enabled always",
            _guess(found),
        )


def _login(schema: Schema, comparison: Comparison) -> Iterator[Defect]:
    me = schema.role(schema.login) or SchemaRole(schema.login)
    powerful = next((r for n in me.member_of if (r := schema.role(n)) and r.superuser), None)
    if me.superuser or powerful:
        yield Defect(
            35,
            schema.login,
            "the gate's login is a superuser" if me.superuser else "the gate's login may become a superuser",
            "A mistake of the gate, or whoever gets hold of its password, could do anything.",
            "Make a login of its own: gate doctor --grants prints the script",
        )
    closed: dict[str, list[str]] = {}
    for one in comparison.tables.values():
        closed.setdefault(schema.closed(one.table), []).append(one.table.qualified)
    for seen, listed in closed.items():
        if seen:
            yield Defect(
                68,
                _listed(listed),
                seen,
                "A login that sees no rows finds no bad row anywhere, and everything looks fine.",
                "Grant select and add a policy for it: gate doctor --grants prints the script",
            )


def _over_http(http: HttpComparison | None, contract: Contract) -> Iterator[Defect]:
    for name, status in (http.unsigned if http else {}).items():
        if 200 <= status < 300:
            yield Defect(
                99,
                name,
                f"a request without credentials is answered {status}",
                "Anybody who reaches the address can send events, or replay them.",
                "Refuse what carries no valid signature or token, before anything else is read",
            )
        elif status >= 500:
            yield Defect(
                55,
                name,
                f"a request without credentials, whose body is no JSON, is answered {status}",
                "Every malformed request looks like an outage, and outages look like malformed requests.",
                "Answer 401 to what carries no credentials",
            )
        elif status not in {401, 403, 429} and contract.endpoints[name].method == "POST":
            yield Defect(
                57,
                name,
                f"a request without credentials is answered {status}; allowed: 401",
                "The body is read before the caller is known, or the caller is not asked for at all.",
                "Authenticate first; the drills show which of the two it is",
            )
