"""Members of the gate's own tenants, for deployments that find a user's tenant by membership (`names: members`)."""

from collections.abc import Sequence

from gates.contract.names import user_of
from gates.deployment.dialect.current import current
from gates.deployment.sql.catalogue import identifier

Statements = list[tuple[str, tuple[object, ...]]]


def joining(companies: Sequence[str]) -> Statements:
    """Statements that make one user of each company a member of it. None if the token names the company."""
    members = current().members
    if members is None:
        return []
    columns = ", ".join(map(identifier, (members.company, members.user, *members.also)))
    values = ", ".join(("%s", "%s", *(text.replace("%", "%%") for text in members.also.values())))
    table = identifier(members.schema, members.name)
    made: Statements = []
    for company in companies:
        user = user_of(company)
        for users in members.users:
            made.append((f"insert into {identifier(*users)} (id) values (%s) on conflict do nothing", (user,)))
        made.append((f"insert into {table} ({columns}) values ({values}) on conflict do nothing", (company, user)))
    return made


def leaving(companies: Sequence[str]) -> tuple[Statements, Statements]:
    """Statements that undo it: before the companies are removed, and after."""
    members = current().members
    if members is None or not companies:
        return [], []
    users = [user_of(company) for company in companies]
    of_users = "= any(%s::uuid[])"
    table = identifier(members.schema, members.name)
    first: Statements = [(f"delete from {table} where {identifier(members.user)} {of_users}", (users,))]
    after: Statements = [
        (f"delete from {identifier(*t)} where id {of_users}", (users,)) for t in reversed(members.users)
    ]
    return first, after
