"""Who the service is to the database: the login of the very session that serves a request, held by a row of ours."""

from typing import Any

from drills.workbench.checks import LIMIT
from drills.workbench.rate_limit import Limit
from drills.workbench.scene import Scene
from drills.workbench.waiting import PATIENCE_S
from gates.checks.recorder import check
from gates.deployment.http.client import NoAnswer
from gates.deployment.sql.database import backend_of

_WAITING_LOGIN = """
select r.rolname::text as login, r.rolsuper as super, r.rolbypassrls as bypass,
       (select string_agg(c.relname::text, ', ' order by c.relname) from pg_class c
        where c.oid in (to_regclass('public.edge_rate_limits'), to_regclass('public.event_outbox'),
                        to_regclass('public.replay_runs'))
          and pg_has_role(r.oid, c.relowner, 'MEMBER')) as owns
from pg_stat_activity a join pg_roles r on r.oid = a.usesysid
where a.pid <> pg_backend_pid() and %s = any(pg_blocking_pids(a.pid))
limit 1
"""


@check("drill/identity/service-login-is-bound", needs=("tenants",), after=LIMIT, covers=("J01",))
def test_service_login_is_bound(limit: Limit, scene: Scene, tenant: str) -> None:
    """The login under which the service runs a replay is subject to row-level security: no superuser, no BYPASSRLS, no
    owner of a table.

    Row-level security has no effect: one forgotten `where` shows a tenant the rows of all others.
    """
    limit.admit(tenant, "call 1, a dry run", control=True, dry_run=True)
    found: list[dict[str, Any]] = []

    with limit.locked_rows(tenant) as held:
        holder = backend_of(held)
        call = scene.in_background(limit.request(tenant, "call 2, its row locked", dry_run=True))

        def probe() -> bool:
            found[:] = scene.rows(_WAITING_LOGIN, holder)
            return bool(found) or call.done()

        scene.until_true(probe, within_s=PATIENCE_S)
    try:
        call.result()
    except NoAnswer as none:
        scene.seen.unmet(f"the call whose row was locked had no answer: {none}")
    scene.seen.require(found, "no session of the database waits for the tenant's row: whose it would be is not seen")
    login = found[0]
    exempt = [word for word, name in (("superuser", "super"), ("BYPASSRLS", "bypass")) if login[name]]
    exempt += [f"owner of {login['owns']}"] if login["owns"] and not login["super"] else []
    scene.seen.value(str(login["login"]), "a login that row-level security binds")
    scene.seen.count()
    assert not exempt, f"the service is logged in as {login['login']}: {', '.join(exempt)}"
