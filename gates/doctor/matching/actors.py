"""Matches real functions and roles with the contract's. Pure."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gates.contract.contract import Contract, SqlFunction
from gates.doctor.matching.assignment import NONE, assign
from gates.doctor.matching.columns import CLOSE, Confidence
from gates.doctor.matching.tables import TableMatch
from gates.doctor.reading.schema import PUBLIC, Schema, SchemaColumn, SchemaFunction, SchemaRole, SchemaTable
from gates.doctor.sqltypes import id_type
from gates.doctor.words import best_likeness, synonyms, words
from gates.text.foreign import text

LEAST, NAMESAKE = 0.5, 0.51
READS_FLAGS = 0.3
"""The bonus of a function whose text names the table of the flags."""
SEES_ALL = "_sees_all"
"""The suffixes of policies that let a gate's login see every row; the prefix is the login."""
SERVERS_OWN = frozenset(
    {"postgres", "supabase_admin", "rds_superuser", "cloudsqlsuperuser", "azure_pg_admin", "pgbouncer"}
)
"""Roles of the server or of its hosting platform."""
OTHER_CLAIMS = frozenset({"app_metadata", "user_metadata", "sub", "role", "email", "aud", "exp", "iat", "iss", "aal"})
"""Claims that name a person or the token, not a tenant."""
EDITED = "user_metadata."
"""The claims that users can edit themselves."""
USERS = "auth.users"
"""Where Supabase has its users."""
ADMINS = ("admin", "company_admin", "administrator", "owner", "manager")
"""Words for the administrator of a tenant, the likeliest first."""
ROLE_PLACES = ("role", "roles", "app_metadata.role", "app_metadata.roles", "realm_access.roles", "permissions", "scope")
"""Places of the role in tokens, the contract's first."""
_CLAIM = re.compile(r"((?:'[A-Za-z_][A-Za-z0-9_]{0,60}'(?:::text)?\)*\s*->>?\s*)*)'([A-Za-z_][A-Za-z0-9_.]{0,60})'")
"""A claim, with the objects around it."""
_PATH = re.compile(r"#>>?\s*'\{([A-Za-z_][A-Za-z0-9_,]{0,100})\}'")
_SETTING = re.compile(r"current_setting\('([^']{1,100})'")


@dataclass(frozen=True, slots=True)
class FunctionMatch:
    """The real function. swapped: its arguments stand in the other order."""

    function: SchemaFunction
    confidence: Confidence
    reason: str
    swapped: bool = False
    is_own: bool = False
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RoleMatch:
    role: SchemaRole
    confidence: Confidence
    reason: str
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TenantClaim:
    """How policies know the tenant. claim: its place in request.jwt.claims. setting: another setting that holds it."""

    claim: str = ""
    setting: str = ""
    seen: int = 0


def match_functions(
    schema: Schema, contract: Contract, flags: TableMatch | None = None, home: str = ""
) -> dict[str, FunctionMatch]:
    """The real functions by name of the contract. Among those with a fitting signature, the likeliest name; among equal
    names, that in the schema that gate.yaml says, or that has the flags.
    """
    near = home or (flags.table.schema if flags else PUBLIC)
    found = {}
    for wanted in contract.functions.values():
        scored = sorted(
            ((s, f, w) for f in schema.functions for s, w in [_function_score(wanted, f, flags)] if s >= LEAST),
            key=lambda x: (-x[0], x[1].schema != near, x[1].qualified),
        )
        if not scored:
            continue
        score, best, swapped = scored[0]
        others = [f.qualified for s, f, _ in scored[1:] if s >= score - CLOSE]
        is_own = best.name == wanted.name and best.schema == (home or PUBLIC) and not swapped
        confidence = Confidence.SURE if score >= 0.95 else Confidence.LIKELY if score >= 0.75 else Confidence.PERHAPS
        found[wanted.name] = FunctionMatch(
            best,
            Confidence.SURE if is_own else Confidence.PERHAPS if others else confidence,
            f"called {best.name}({', '.join(best.arguments)}), gives {best.returns}",
            swapped,
            is_own,
            () if is_own else (*others[:3],),
        )
    return found


def _function_score(wanted: SqlFunction, one: SchemaFunction, flags: TableMatch | None) -> tuple[float, bool]:
    """The score, and whether the two arguments (key and tenant) are swapped. flags: the table that it should read."""
    if len(one.arguments) != len(wanted.arguments):
        return 0.0, False
    alike = best_likeness(synonyms().spellings("functions", wanted.name), words(one.name))
    named = 1.0 if one.name == wanted.name else alike
    kinds = [id_type(a) for a in one.arguments]
    if not all(kinds) or one.returns != wanted.returns:
        return 0.0, False
    if "text" in kinds and kinds[0] != kinds[1]:  # few functions go from a word and an id to a boolean
        named = max(named, LEAST)
    if flags and re.search(rf"\b{re.escape(flags.table.name)}\b", one.source):
        named = min(max(named, LEAST) + READS_FLAGS, 1.0)
    if kinds[0] == kinds[1]:
        swapped = "company" in {c for w in words((*one.argument_names, "")[0]) for c in synonyms().classes.get(w, ())}
    else:
        swapped = kinds[0] != "text" and kinds[1] == "text"
    return named, swapped


def match_roles(
    schema: Schema, contract: Contract, tables: Mapping[str, TableMatch], said: Mapping[str, str | None] | None = None
) -> dict[str, RoleMatch]:
    """The real roles by name of the contract: as gate.yaml says, by name, and by what policies allow. said: what
    gate.yaml says. Logins of the gate, and the present one, are no roles of the contract.
    """
    known_already = said or {}
    gates_own = {
        role for m in tables.values() for p in m.table.policies for role in p.roles if p.name == f"{role}{SEES_ALL}"
    }
    own = {*gates_own, schema.login} - {*contract.roles}
    roles = [r for r in schema.roles if r.name not in SERVERS_OWN | own]
    policed = Counter(
        role
        for m in tables.values()
        for p in m.table.policies
        if p.rows.strip("() ") != "true"
        for role in p.roles
        if role not in own
    )
    most = policed.most_common(1)[0][0] if policed else ""
    known = {r for m in tables.values() for r in (*m.table.grantees, *(x for p in m.table.policies for x in p.roles))}
    named = [n for n in contract.roles if n not in known_already]
    scores = [[_role_score(n, r, most, known) for r in roles] for n in named]
    found = assign(scores, LEAST)
    real = {n: schema.role(r) for n, r in known_already.items() if r is not None}
    made = {n: RoleMatch(r, Confidence.SURE, "gate.yaml says so") for n, r in real.items() if r is not None}
    for name, row, place in zip(named, scores, found, strict=True):
        if place == NONE:
            continue
        role, score = roles[place], row[place]
        rivals = [roles[i].name for i, s in enumerate(row) if i not in found and s >= max(score - CLOSE, LEAST)]
        reasons = [f"called {role.name}"] + [f"policies of {policed[role.name]} name it"] * (role.name in policed)
        confidence = Confidence.LIKELY if score >= 0.85 else Confidence.PERHAPS
        if role.name == name:
            made[name] = RoleMatch(role, Confidence.SURE, "same name")
        else:
            made[name] = RoleMatch(
                role, Confidence.PERHAPS if rivals else confidence, ", ".join(reasons), (*rivals[:3],)
            )
    return made


def _role_score(name: str, role: SchemaRole, most_policed: str, known: set[str]) -> float:
    """Roles belong to the whole server: one without rights on any table here may be another deployment's."""
    wants_rights = name != "anon" and bool(known)
    if role.name == name:
        return NAMESAKE if wants_rights and role.name not in known else 1.0
    if wants_rights and role.name not in known:
        return 0.0
    score = 0.9 * best_likeness(synonyms().spellings("roles", name), words(role.name))
    if name == "authenticated" and role.name == most_policed and role.name != "public":
        score = max(score, 0.55) + 0.25
    wants_login = name.startswith("replay_")
    if score and wants_login != role.login:
        score -= 0.15
    return min(score, 0.97)


def role_in(claims: Mapping[str, Any]) -> tuple[str, str]:
    """The place of the role in an administrator's claims (`[]`: in a list), and the role; empty if there is none."""
    for place in ROLE_PLACES:
        found: Any = claims
        for name in place.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        if isinstance(found, str) and found:
            return place, text(found, 100)
        if isinstance(found, list) and len(found) == 1 and isinstance(found[0], str):
            return f"{place}[]", text(found[0], 100)
    return "", ""


def tenant_claim(tables: Sequence[TableMatch], schema: Schema) -> TenantClaim:
    """How policies, and functions that they may call, know the tenant; empty if none says it plainly."""
    claims, settings = _read(tables, schema)
    trusted = Counter({name: seen for name, seen in claims.items() if not name.startswith(EDITED)}) or claims
    if trusted:
        name, seen = trusted.most_common(1)[0]
        return TenantClaim(claim=name, seen=seen)
    if settings:
        name, seen = settings.most_common(1)[0]
        return TenantClaim(setting=name, seen=seen)
    return TenantClaim()


def edited_claims(tables: Sequence[TableMatch], schema: Schema) -> list[str]:
    """Claims from which a caller's tenant is read although he can edit them himself."""
    return sorted(name for name in _read(tables, schema)[0] if name.startswith(EDITED))


def _read(tables: Sequence[TableMatch], schema: Schema) -> tuple[Counter[str], Counter[str]]:
    """The tenant claims and the settings that are read, and how often."""
    claims, settings = Counter[str](), Counter[str]()
    rows = [p.rows for m in tables for p in m.table.policies]
    asks = re.compile("|".join([r"jwt", *(rf"\b{re.escape(name)}\(" for name in schema.claim_readers)]))
    for said in (*rows, *schema.claim_readers.values()):
        settings.update(s for s in _SETTING.findall(said) if not s.startswith("request.jwt"))
        if not asks.search(said):
            continue
        claims.update(p.replace(",", ".") for p in _PATH.findall(said) if p.split(",")[-1] not in OTHER_CLAIMS)
        for outer, member in _CLAIM.findall(said):
            if member not in OTHER_CLAIMS and not member.startswith("request."):
                claims[".".join([*re.findall(r"'(\w+)'", outer), member])] += 1
    return claims, settings


@dataclass(frozen=True, slots=True)
class FoundMembers:
    """The table in which policies look the caller up. users: tables that its user id refers to, the first one first.
    also: column -> value for our rows. seen: how many policies or functions read it.
    """

    table: SchemaTable
    company: str
    user: str
    users: tuple[str, ...]
    also: Mapping[str, str]
    seen: int


def tenant_members(tables: Mapping[str, TableMatch], schema: Schema) -> FoundMembers | None:
    """The table that maps users to tenants; None if no policy reads one."""
    companies = tables.get("companies")
    named = {m.columns["company_id"].column.name for m in tables.values() if "company_id" in m.columns}
    known = {m.table.qualified for m in tables.values()}
    texts = [*schema.claim_readers.values(), *(p.rows for m in tables.values() for p in m.table.policies)]
    found = []
    for table in schema.tables:
        seen = sum(bool(re.search(rf"\b{re.escape(table.name)}\b", text)) for text in texts)
        if not seen or table.is_view or table.qualified in known:
            continue
        home = companies.table.qualified if companies else ""
        company = [c.name for c in table.columns.values() if c.name in named or (home and c.references == home)]
        user = [c for c in table.columns.values() if c.name not in company and _is_user(c, schema)]
        if company and user:
            users = (*_referred(schema, user[0].references),)
            also = _of_admins(table, {company[0], user[0].name})
            found.append(FoundMembers(table, company[0], user[0].name, users, also, seen))
    return max(found, key=lambda f: f.seen, default=None)


def _is_user(column: SchemaColumn, schema: Schema) -> bool:
    """Whether it is a user's id, which is compared with `sub` of a token."""
    named = "user" in {w for word in words(column.name) for w in (word, *synonyms().classes.get(word, ()))}
    return id_type(column.type) == "uuid" and (named or USERS in _referred(schema, column.references))


def _referred(schema: Schema, table: str) -> Iterator[str]:
    """A table of users, after those that its own id refers to."""
    listed = {t.qualified: t for t in schema.tables}
    chain: list[str] = []
    while table and table not in chain and len(chain) < 5:
        chain.insert(0, table)
        own = listed.get(table)
        table = own.columns["id"].references if own and "id" in own.columns else ""
    yield from chain


def _of_admins(table: SchemaTable, known: set[str]) -> dict[str, str]:
    """Further values of a member's row: the word for an administrator, if rows have such a column."""
    made = {}
    for column in table.columns.values():
        word = next((w for w in ADMINS if w in column.values), "")
        if column.name not in known and word:
            made[column.name] = f"'{word}'"
    return made
