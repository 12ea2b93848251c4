"""How well a column's type fits a type of the contract. Pure."""

TEXTS = frozenset({"text", "character varying", "character", "citext", "name", "bpchar", "varchar"})
WHOLES = frozenset({"smallint", "integer", "bigint", "numeric"})
TIMES = frozenset({"timestamp with time zone", "timestamp without time zone"})
KINDS = {
    "text": TEXTS,
    "integer": WHOLES,
    "bigint": WHOLES,
    "timestamptz": TIMES,
    "jsonb": frozenset({"jsonb", "json"}),
    "uuid": frozenset({"uuid"}),
    "boolean": frozenset({"boolean"}),
    "date": frozenset({"date"}),
    "xid8": frozenset({"xid8"}),
    "timestamptz[]": frozenset({"timestamp with time zone[]", "timestamp without time zone[]"}),
}
"""Type of the contract -> types that hold the same values."""
SPELLED = {"timestamptz": "timestamp with time zone", "timestamptz[]": "timestamp with time zone[]"}
LOOSE: dict[tuple[str, str], float] = {
    ("text", "integer"): 0.3,  # an enumeration kept as numbers
    ("text", "smallint"): 0.3,
    ("text", "uuid"): 0.5,
    ("text", "jsonb"): 0.3,
    ("text", "bytea"): 0.5,  # a digest
    ("boolean", "smallint"): 0.4,
    ("boolean", "integer"): 0.4,
    ("boolean", "timestamp with time zone"): 0.3,  # paused_at
    ("timestamptz", "bigint"): 0.4,  # an epoch
    ("timestamptz", "date"): 0.3,
    ("date", "timestamp with time zone"): 0.5,
    ("date", "timestamp without time zone"): 0.5,
    ("date", "text"): 0.4,
    ("date", "character varying"): 0.4,
    ("jsonb", "text"): 0.5,
    ("jsonb", "hstore"): 0.5,
    ("jsonb", "bytea"): 0.4,
    ("xid8", "bigint"): 0.5,
    ("xid8", "text"): 0.3,
    ("timestamptz[]", "jsonb"): 0.4,
}


def bare(kind: str) -> str:
    """The type without its schema; an enum of the deployment's own has no kind here."""
    return kind.rpartition(".")[2].strip('"') if "." in kind else kind


def fitness(wanted: str, found: str, *, is_id: bool, values: bool = False) -> float:
    """From 0 (useless) to 1 (the same). is_id: it identifies a row. values: the column has an enumerated type."""
    kind = bare(found)
    if found == SPELLED.get(wanted, wanted):
        return 1.0
    if kind in KINDS.get(wanted, frozenset()):
        return 0.9
    if is_id and id_type(found):
        return 0.85
    if wanted == "text" and values:
        return 0.95
    return LOOSE.get((wanted, kind), 0.0)


def id_type(found: str) -> str:
    """The id type of `names:` of a column: uuid, bigint or text; empty for another one."""
    kind = bare(found)
    if kind == "uuid":
        return "uuid"
    return "text" if kind in TEXTS else "bigint" if kind in WHOLES - {"numeric"} else ""


def is_id(column: str, wanted: str) -> bool:
    """Whether a column of the contract identifies a row."""
    return wanted == "uuid" or column == "id" or column.endswith("_id")


def difference(wanted: str, found: str, *, is_id: bool, values: bool) -> str:
    """The difference between the types, in words; empty if values are equivalent for every use."""
    kind = bare(found)
    if fitness(wanted, found, is_id=is_id, values=values) >= 0.9 and kind not in {
        "timestamp without time zone",
        "timestamp without time zone[]",
        "json",
    }:
        return ""
    if is_id and id_type(found):
        return ""
    return f"{found}, where {wanted} is expected"
