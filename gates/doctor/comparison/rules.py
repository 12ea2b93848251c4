"""What is wrong with a table's unique keys and its row-level security. Pure."""

from collections.abc import Sequence

from gates.doctor.reading.expressions import believes_a_client, is_true
from gates.doctor.reading.schema import SchemaTable, UniqueKey

NOT_FORCED = "not forced"
WRITES = "lets rows of any tenant be written by"
EVERYBODY = frozenset({"public", "anon", "authenticated"})


def key_trouble(table: SchemaTable, columns: Sequence[str], nullable: set[str]) -> str:
    """Why the columns are no unique key of the table; empty if they are. nullable: those whose null means everybody, of
    which there may be at most one row.
    """
    wanted = set(columns)
    if any(wanted <= _covered(k, wanted) and k.expression for k in table.keys):
        return ""  # as in unique (key, coalesce(company_id, ...))
    whole = [k for k in table.keys if set(k.columns) == wanted and not k.partial and not k.expression]
    if not whole and table.kind == "p":  # the key of a native partition includes the partition column
        whole = [k for k in table.keys if wanted < set(k.columns) and not k.partial]
    if not whole and nullable and _in_two(table, wanted, nullable):
        return ""
    if not whole:
        less = [k for k in table.keys if set(k.columns) < wanted and k.columns and not k.partial and not k.expression]
        if less:
            return f"unique over {', '.join(less[0].columns)} alone"
        return f"no unique key over {', '.join(columns)}"
    if nullable and not any(k.nulls_not_distinct for k in whole):
        rest = wanted - nullable
        apart = [k for k in table.keys if k.partial and set(k.columns) <= wanted and (rest <= set(k.columns))]
        if not apart:
            return f"a null of {', '.join(sorted(nullable))} is always distinct: there can be two rows for everybody"
    return ""


def _in_two(table: SchemaTable, wanted: set[str], nullable: set[str]) -> bool:
    """Whether one key covers the tenants' rows and another those of everybody."""
    parts = [k for k in table.keys if k.partial]
    tenants = [k for k in parts if set(k.columns) == wanted and not k.expression]
    return bool(tenants) and any(set(k.columns) == wanted - nullable for k in parts)


def _covered(key: UniqueKey, wanted: set[str]) -> set[str]:
    return {*key.columns, *(w for w in wanted if w in key.expression)}


def wider_key(table: SchemaTable, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of a complete unique key that has more than these; empty if there is none."""
    whole = (k.columns for k in table.keys if not k.partial and not k.expression)
    return next((c for c in whole if {*columns} < {*c}), ())


def row_security_trouble(table: SchemaTable) -> str:
    """What is wrong with a table's row-level security; empty if nothing is."""
    if not table.secured:
        return "row-level security is off"
    for policy in table.policies:
        if not policy.permissive or not set(policy.roles) & EVERYBODY:
            continue
        if is_true(policy.rows):
            return f"policy {policy.name} {'shows every row to' if policy.command in 'r*' else WRITES} everybody"
        if is_true(policy.written):
            return f"policy {policy.name} {WRITES} everybody"
        if believes_a_client(policy.rows):
            return f"policy {policy.name} believes what a client says of itself"
    return "" if table.forced else f"row-level security is {NOT_FORCED}: the owner sees every row"
