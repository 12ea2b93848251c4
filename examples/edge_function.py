"""Brings up examples/edge-function: migrations, a day of healthy history, the functions and the relay."""

import http.client
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress

from examples.ground import HERE, Ground, Patch, run_sql
from gates.deployment.requests import bucket, mint_token
from gates.stack.postgres import free_port

NAME = "edge-function"
DATABASE = "edge"
LEAST_ORG = 1000
RELEASE = "edge-2025.03.1"
OPERATOR = "c0ffee00-0000-4000-8000-000000000002"
TOKEN_LIFE_S = 30 * 86_400


def bring_up(ground: Ground, patches: Sequence[Patch] = (), statements: Sequence[str] = ()) -> Mapping[str, str]:
    """Bring it up with these defects in it; the variables that a gate needs."""
    url = ground.database(DATABASE)
    api, relay = ground.login(DATABASE, "edge_api"), ground.login(DATABASE, "edge_relay")
    source = ground.source(NAME, patches)
    folder = source / "supabase"
    run_sql(url, (folder / "stubs.sql").read_text(encoding="utf-8"))
    run_sql(url, f"grant create on database {DATABASE} to edge_owner")
    run_sql(url, "create schema supabase_migrations authorization edge_owner")
    run_sql(
        url,
        "create table supabase_migrations.schema_migrations (version text primary key, name text)",
        "grant usage on schema supabase_migrations to edge_api",
        "grant select on supabase_migrations.schema_migrations to edge_api",
        role="edge_owner",
    )
    for migration in sorted((folder / "migrations").glob("*.sql")):
        version, _, name = migration.stem.partition("_")
        noted = f"insert into supabase_migrations.schema_migrations values ('{version}', '{name}')"
        run_sql(url, migration.read_text(encoding="utf-8"), noted, role="edge_owner")
    org = str(next(n for n in range(LEAST_ORG, 2 * LEAST_ORG) if bucket("outbox.enabled", str(n)) < 10))
    run_sql(url, (HERE / NAME / "history.sql").read_text(encoding="utf-8"), settings={"history.org": org})
    for statement in statements:
        run_sql(url, statement)

    port = free_port()
    told = {
        "SIGNING_SECRETS": secrets.token_hex(32),
        "SUPABASE_JWT_SECRET": secrets.token_hex(32),
        "SUPABASE_ANON_KEY": f"sb_publishable_{secrets.token_hex(12)}",
        "RELEASE": RELEASE,
        "COMMIT": RELEASE,
        "PORT": str(port),
        "TZ": "UTC",
    }
    ground.build(source, "server.ts", "relay/relay.ts")
    ground.start("functions", ("/usr/bin/env", "node", "dist/server.js"), source, {**told, "DATABASE_URL": api})
    ground.start("relay", ("/usr/bin/env", "node", "dist/relay/relay.js"), source, {**told, "DATABASE_URL": relay})
    ground.wait(lambda: _ready(port), f"/ready of {NAME} answers 200")
    now = int(time.time())
    claims = {"sub": OPERATOR, "role": "super_admin", "iat": now, "exp": now + TOKEN_LIFE_S}
    return {
        "GATE_TARGET": "staging",
        "BASE_URL": f"http://127.0.0.1:{port}",
        "TRANSBOT_HMAC_SECRET": told["SIGNING_SECRETS"],
        "TEST_COMPANY_ID": org,
        "ADMIN_JWT": mint_token(told["SUPABASE_JWT_SECRET"], claims),
        "REPLAY_JWT_SECRET": told["SUPABASE_JWT_SECRET"],
        "SUPABASE_ANON_KEY": told["SUPABASE_ANON_KEY"],
        "DATABASE_URL": url,
        "RELEASE": RELEASE,
        "TEST_OUTBOX": "true",
        "TEST_DLQ": "true",
        "TEST_AGENTS": "true",
    }


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    return False
