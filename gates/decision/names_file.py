"""The shape of `names:` in gate.yaml, and how it becomes the plain values of gates.contract.names."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from gates.contract.contract import Relation, contract
from gates.contract.names import ARGUMENTS, ID_KINDS, ID_TYPES, Names, names_of
from gates.contract.places import OUTSIDE, SCALARS, blanks, places_of
from gates.decision.names_sql import SqlExpression
from gates.errors import ConfigError, raise_all
from gates.inputs.shapes import Boolean, Choice, Fields, ListOf, MapMembers, MapOf, Number, OneOf, Scalar, Shape, Text
from gates.inputs.strict_yaml import YamlNode, read

NAME = Text(r"[^.\s\0][^.\0]*", "a name without a schema")
QUALIFIED = Text(r"[^.\s\0][^.\0]*(\.[^.\0]+)?", "name or schema.name")
WORD = Text(r"[^\0]+", "text that is not empty")
PATH = Text(
    r"/([^\s\0?#{}]|\{[^\s\0/?#{}]+\})*", "a path that begins with /; {NAME} is where a field `path:NAME` stands"
)
HEADER = Text(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", "the name of a header")
DOTTED = Text(r"[^.\s\0]+(\.[^.\s\0]+)*", "a member, or members divided by dots")
ID = Text(
    rf"{'|'.join(ID_TYPES)}|[^\0{{}}]*\{{(hex|uuid|ulid)\}}[^\0{{}}]*",
    f"{', '.join(ID_TYPES)}, or a form of text with {{hex}}, {{uuid}} or {{ulid}}",
)
SQL = Fields(
    {
        "sql": (SqlExpression(), "An expression over the row."),
        "is": (NAME, "The real column that holds it."),
        "write": (SqlExpression(takes_value=True), "What `is` holds for a value."),
    },
    needed=("sql",),
)

GIVES_NAMES = re.compile(r"""(?:^|[{,])[^\S\n]*+(["']?)names\1\s*+:""", re.MULTILINE)
"""A member `names` in the text of a policy, in any style of YAML."""
MAY_GIVE_NAMES = re.compile(r"names|\\[xuU]|\0")
"""The word anywhere, or what may be the word in an escape or another encoding."""


class NamesError(ConfigError):
    """`names:` of gate.yaml cannot be used, so it is unknown what the gate would do to such a target."""


class NamesUnread(ConfigError):  # noqa: N818  -- reads as a sentence
    """The policy cannot be read, so it is unknown whether it gives names, and which."""


def _table(relation: Relation) -> Shape:
    columns = tuple(relation.columns)
    values: dict[str, tuple[Shape, str]] = {
        column: (_values(relation.values.get(column)), f"Contract value of {column} -> real value.")
        for column in columns
    }
    members: dict[str, tuple[Shape, str]] = {
        "is": (QUALIFIED, "The real table or view."),
        "columns": (
            Fields({c: (OneOf(NAME, SQL), f"The real column of {c}, or what gives its value.") for c in columns}),
            "Contract column -> real column, or {sql: expression over the row}, read-only without `write`.",
        ),
        "values": (Fields(values), "Contract value -> real value, by column."),
        "absent": (
            OneOf(Boolean(), listing=ListOf(Choice(columns))),
            "Columns that the deployment has not; true: it has not the table.",
        ),
        "rows": (SqlExpression(), "Which real rows count, as SQL over the row: the others are deleted."),
        "also": (
            MapOf(SqlExpression(), r"[^.\0]+", "a real column"),
            "Real column -> SQL of its value in each row that the gate inserts.",
        ),
    }
    if "hits" in columns:
        members["calls"] = (CALLS, "Each real row is one call, or `number` of them.")
    return Fields(members)


CALLS = Fields(
    {
        "at": (OneOf(NAME, SQL), "The real column of when, or what gives its value."),
        "number": (NAME, "The real column of how many, where a row counts the calls of a moment."),
        "company": (NAME, "The real column of the tenant."),
        "address": (NAME, "The real column of the client's address."),
    },
    needed=("at",),
)


def _values(known: tuple[str, ...] | None) -> Shape:
    return Fields(dict.fromkeys(known, (WORD, "The real value."))) if known else MapOf(WORD)


SIGNATURE = Fields(
    {
        "form": (Text(r"[^\r\n]*\{(hex|base64)\}[^\r\n]*", "text with {hex} or {base64}"), "The header's value."),
        "encoding": (Choice(("hex", "base64")), "How the MAC is written; what `form` says."),
        "v2": (
            Text(r"[^\r\n]*\{(hex|base64)\}[^\r\n]*", "text with {t} and {hex} or {base64}"),
            "The form with a time.",
        ),
        "signed": (
            Text(r"[^\0]*\{body\}[^\0]*", "text with {body}, and {t}, {method}, {path} if need be"),
            "What v2 signs.",
        ),
    }
)
MEMBERS = Fields(
    {
        "is": (QUALIFIED, "The real table."),
        "company": (NAME, "Its column of the tenant."),
        "user": (NAME, "Its column of the user, a UUID."),
        "users": (ListOf(QUALIFIED, 1), "The tables to whose `id` the user refers, the first one first: [auth.users]."),
        "also": (
            MapOf(SqlExpression(), r"[^.\0]+", "a real column"),
            "Real column -> SQL of its value in the gate's own rows.",
        ),
    },
    needed=("is", "company", "user"),
)
TOKEN = Fields(
    {
        "role": (
            Text(r"[^.\s\0]+(\.[^.\s\0]+)*(\[\])?", "a claim, divided by dots; [] for a list"),
            "Where the role stands.",
        ),
        "roles": (
            Fields(dict.fromkeys(("super_admin", "company_admin"), (WORD, "Its real name."))),
            "Role of the contract -> its real name.",
        ),
    }
)
CODE = OneOf(WORD, listing=ListOf(Scalar(), 2))
"""A real code, or [real code, status]."""
ROLES = (*contract().roles, "replay_gate", "replay_owner")
OF_THE_SERVICE = {"http", "token", "limits"}
"""Members that no act on the database asks for."""
SENT = r"GATEWAY_\w+|SUPABASE_(ANON|PUBLISHABLE)_KEY"
"""The only variables sent to a target: the policy may come from a pull request, and no list has every secret."""
HTTP = Fields(
    {
        "paths": (
            MapOf(OneOf(PATH, nothing=True), r"/.*", "a path of the contract"),
            "Path of the contract -> real path, by prefix; null: there is none.",
        ),
        "headers": (
            Fields({h: (HEADER, f"The real name of {h}.") for h in contract().headers}),
            "Header of the contract -> real header.",
        ),
        "extra_headers": (
            MapOf(
                Text(
                    rf"[^$\r\n\0][^\r\n\0]*|\$({SENT})",
                    "one line, or $GATEWAY_ and the rest of a variable's name (rename the variable)",
                ),
                *(HEADER.pattern, HEADER.said),
            ),
            "Headers of every request; $GATEWAY_NAME is read from the environment, and hidden.",
        ),
        "fields": (
            MapOf(OneOf(DOTTED, listing=ListOf(DOTTED, 1), nothing=True)),
            "Member of requests and answers -> its real name, or names; PLACE:NAME where it is in no body; null: none.",
        ),
        "metrics": (
            Fields({m: (OneOf(WORD, nothing=True), f"The real name of {m}.") for m in contract().metrics}),
            "Series of the contract -> real series of /metrics; null: there is none.",
        ),
        "success": (MapOf(Scalar(), r"/.*", "a path of the contract"), "Path -> the status of its success, by prefix."),
        "ids": (Choice(("number", "text")), "How ids that are numbers travel in JSON and in tokens (else number)."),
        "envelope": (DOTTED, "The member of an answer that holds what the contract has at the top."),
        "values": (MapOf(MapOf(WORD)), "Member -> contract value -> real value."),
        "codes": (MapOf(CODE), "Code -> real code, or [real code, status]."),
        "code_member": (DOTTED, "Where the code stands in the body of an error."),
        "signature": (SIGNATURE, "How a signed request is signed."),
    }
)
NAMES = Fields(
    {
        "schema": (NAME, "The schema of what says none (else public)."),
        "ids": (
            Fields({n: (ID, f"The type of {n}, or the form of its text.") for n in ID_KINDS}),
            "Id -> its type (else uuid).",
        ),
        "tables": (
            Fields({n: (_table(r), f"What {n} is.") for n, r in contract().relations.items()}),
            "Tables and views of the contract.",
        ),
        "functions": (
            Fields(
                {
                    n: (
                        Fields(
                            {
                                "is": (QUALIFIED, "The real function."),
                                "arguments": (ListOf(Choice(ARGUMENTS[n]), 1), "The order of its arguments."),
                                "bucket": (
                                    Choice(("contract", "own")),
                                    "own: it draws tenants by another formula than the contract's.",
                                ),
                            }
                        ),
                        f"What {n} is.",
                    )
                    for n in contract().functions
                }
            ),
            "Functions of the contract.",
        ),
        "roles": (
            Fields({r: (OneOf(WORD, nothing=True), f"What {r} is; null: there is none.") for r in ROLES}),
            "Roles of the contract.",
        ),
        "own_tables": (
            MapOf(NAME, QUALIFIED.pattern, QUALIFIED.said),
            "Table that the contract does not know -> its column of the tenant. Cleaned in this order.",
        ),
        "tenant_claim": (DOTTED, "Where the tenant stands in the claims (else company_id)."),
        "members": (MEMBERS, "The table that says whose a user (`sub`) is, where the token does not."),
        "tenant_setting": (
            DOTTED,
            "The setting by which policies know the tenant, where it is not request.jwt.claims.",
        ),
        "token": (TOKEN, "How a bearer token says what its bearer may do."),
        "http": (HTTP, "The dialect of the service."),
        "limits": (
            Fields(
                {
                    name: (Number(least, most, whole=True), f"Of {name}; the contract has {value}.")
                    for name, (value, least, most) in contract().limits.items()
                }
            ),
            "Limits of the service, where they are others.",
        ),
    }
)


def names_of_text(text: str, file: str) -> Names:
    """Read only what a policy's names say of the database: what a rollback needs. Raise NamesError if it is wrong,
    NamesUnread if unreadable text may have some. A carriage return alone, and names of the service that are wrong,
    make the policy wrong and keep no rollback from its names.
    """
    try:
        node = read(text.replace("\r", "\n"), file).member("names")
        if node is not None and isinstance(node.value, dict):
            node = replace(node, value={k: v for k, v in node.value.items() if k not in OF_THE_SERVICE})
        return read_names(node)
    except NamesError:
        raise
    except Exception as error:  # noqa: BLE001  -- whoever reads the rest of the file reports it
        if GIVES_NAMES.search(text):
            raise NamesError(str(error)) from None
        if MAY_GIVE_NAMES.search(text):
            raise NamesUnread(str(error)) from None
        return Names()


def names_in(root: YamlNode) -> Names:
    """The names of a policy, whatever else is in it. Raise NamesError."""
    return read_names(root.member("names"))


def read_names(node: YamlNode | None) -> Names:
    """The names of a node, if there is one. Raise NamesError, with its place, for anything impossible."""
    if node is None:
        return Names()
    try:
        given = _plain(NAMES.read(node))
        raise_all(_problems(node, given))
    except ConfigError as error:
        raise NamesError(str(error)) from None
    return names_of(given)


def _plain(value: Any) -> Any:
    """What a shape read, as plain mappings, lists and scalars."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, MapMembers):
        return {name: _plain(v) for _, name, v in value}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _problems(node: YamlNode, given: Mapping[str, Any]) -> Iterator[ConfigError]:
    tables = node.member("tables")
    for table, said in given.get("tables", {}).items():
        here = (tables and tables.member(table)) or node
        if said.get("absent") is True and len(said) > 1:
            yield here.place.error(f"{table} is absent and mapped", "one of the two", "Remove the other")
        yield from _of_columns(here, table, said)
        yield from _of_calls(here, said)
    for function, said in given.get("functions", {}).items():
        wanted = said.get("arguments", list(ARGUMENTS[function]))
        if sorted(wanted) != sorted(ARGUMENTS[function]):
            place = node.place_of("functions", function, "arguments")
            yield place.error(f"{wanted}", f"each of {', '.join(ARGUMENTS[function])} once", "Correct the list")
    yield from _of_places(node, given.get("http", {}))
    for path, said in given.get("http", {}).get("success", {}).items():
        if type(said) is not int or not 200 <= said <= 299:
            yield node.place_of("http", "success", path).error(f"{said}", "a status of 200 to 299", "Correct it")
    for code, said in given.get("http", {}).get("codes", {}).items():
        if isinstance(said, list) and (len(said) != 2 or not isinstance(said[1], int) or not 400 <= said[1] <= 599):
            place = node.place_of("http", "codes", code)
            yield place.error(f"{said}", "a code, or [code, status] with a status of 400 to 599", "Correct it")


def _of_places(node: YamlNode, http: Mapping[str, Any]) -> Iterator[ConfigError]:
    told = places_of(http.get("fields", {})).items()
    spelled = [(member, place, name) for member, said in told for place, name in said]
    in_paths = {name for path in http.get("paths", {}).values() for name in blanks(path or "")}
    for member, place, name in spelled:
        here = node.place_of("http", "fields", member)
        if place in OUTSIDE and member not in SCALARS:
            yield here.error(f"{member} in the {place}", "a body, for lists and objects", "Say its name in the body")
        if place == "path" and name not in in_paths:
            yield here.error(f"path:{name}", "a {NAME} that stands in one of `paths`", f"Put {{{name}}} into one")
        if place == "header" and not re.fullmatch(HEADER.pattern, name):
            yield here.error(f"header:{name}", HEADER.said, "Correct it")
    named = {name for _, place, name in spelled if place == "path"}
    for path, real in http.get("paths", {}).items():
        for name in set(blanks(real or "")) - named:
            here = node.place_of("http", "paths", path)
            yield here.error(f"{{{name}}}", f"a field that says `path:{name}`", "Say in `fields` what stands there")


def _of_calls(node: YamlNode, said: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Mistakes in names where each row is one call: such rows must say all but whose they are."""
    if "calls" not in said:
        return
    for column in ("hits", "count", "window_start"):
        if column in said.get("columns", {}):
            yield node.place_of("columns", column).error(f"{column} beside `calls`", "one of the two", "Remove it")
    if ("company" in said["calls"]) == ("key" in said.get("columns", {})):
        place = node.place_of("calls")
        yield place.error("calls of whom?", "`company` (and `address`), or a column of the key", "Say one of the two")


def _of_columns(node: YamlNode, table: str, said: Mapping[str, Any]) -> Iterator[ConfigError]:
    absent = said.get("absent", [])
    for column in absent if isinstance(absent, list) else ():
        for part in ("columns", "values"):
            if column in said.get(part, {}):
                place = node.place_of(part, column)
                yield place.error(f"{table}.{column} is absent and mapped", "one of the two", "Remove the other")
    for column, real in said.get("columns", {}).items():
        if isinstance(real, Mapping) and "write" in real and "is" not in real:
            place = node.place_of("columns", column)
            yield place.error(f"{table}.{column} is written", "`is`, the real column, beside `write`", "Add it")
    for column, values in said.get("values", {}).items():
        twice = [v for v in values.values() if list(values.values()).count(v) > 1]
        if twice:
            place = node.place_of("values", column)
            yield place.error(f"two values of {column} are {twice[0]!r}", "one each", "Nobody could tell them apart")
