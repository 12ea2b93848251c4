"""Brings up examples/pg-boss: a worker, a shop that places orders, and a history of jobs that really ran."""

from collections.abc import Mapping, Sequence
from functools import partial

from examples.ground import HERE, Ground, Patch, run_sql
from gates.stack.postgres import connect

NAME = "pg-boss"
DATABASE = "shop"
HISTORY_JOBS = 200
HISTORY = """
select (select count(*) from shop.mails) >= %s
   and exists (select from pgboss.job where name = 'mail.send' and state = 'completed')
"""


def bring_up(ground: Ground, patches: Sequence[Patch] = (), statements: Sequence[str] = ()) -> Mapping[str, str]:
    """Bring it up, let its history run, then put these defects in; the variables that a gate needs."""
    url = ground.database(DATABASE)
    login = ground.login(DATABASE, "shop")
    run_sql(url, f"grant create on database {DATABASE} to shop", (HERE / NAME / "shop.sql").read_text(encoding="utf-8"))
    healthy = ground.source(NAME)
    told = {"DATABASE_URL": login, "TZ": "UTC"}
    worker = ground.start("worker", ("/usr/bin/env", "node", "src/worker.js"), healthy, told)
    ground.wait(partial(_says, url, "select to_regclass('pgboss.job') is not null"), "pg-boss has its schema")
    ground.start("shop", ("/usr/bin/env", "node", "src/shop.js", str(HISTORY_JOBS)), healthy, told)
    ground.wait(partial(_says, url, HISTORY, HISTORY_JOBS), f"{HISTORY_JOBS} orders are fulfilled and their mails sent")
    if patches:
        worker.stop()
        broken = ground.source(NAME, patches, folder="broken")
        ground.start("worker-with-defect", ("/usr/bin/env", "node", "src/worker.js"), broken, told)
    for statement in statements:
        run_sql(url, statement)
    return {"GATE_TARGET": "staging", "DATABASE_URL": url}


def _says(url: str, query: str, *parameters: object) -> bool:
    with connect(url) as connection:
        row = connection.execute(query.encode(), parameters or None).fetchone()
    return row == (True,)
