"""/openapi.json matches the routes: schemathesis finds nothing. That every route is served, and wants credentials,
the drills show.

The same by hand against a running deployment:
`schemathesis run $BASE_URL/openapi.json -H "Authorization: Bearer $ADMIN_JWT"`.
"""

import json
import subprocess
import sys
import uuid
from pathlib import Path

import httpx

from replay_service.openapi import document
from tests.replay_service.http.service_process import BASE_PATH, Db, Service, token


def test_the_served_document_is_the_committed_one(http: httpx.Client) -> None:
    """What is served is what is in the repository, with the base path as its server."""
    assert http.get("/openapi.json").json() == document(BASE_PATH)


def test_schemathesis_finds_nothing(service: Service, http: httpx.Client, db: Db, tmp_path: Path) -> None:
    """Generated requests, valid and not, are answered as the document says, for tenants that exist."""
    companies = [str(uuid.uuid4()) for _ in range(40)]
    with db.cursor() as cursor:
        cursor.executemany("INSERT INTO companies (id, name) VALUES (%s, 'drill-openapi')", [(c,) for c in companies])
        cursor.execute("UPDATE worker_heartbeats SET beat_at = now() + interval '10 minutes'")  # no worker runs here
    described = http.get("/openapi.json").json()
    for name in ("ReplayRequest", "EventRequest"):
        described["components"]["schemas"][name]["properties"]["company_id"] = {"type": "string", "enum": companies}
    schema = tmp_path / "openapi.json"
    schema.write_text(json.dumps(described))
    program = str(Path(sys.executable).with_name("schemathesis"))
    asked = ["run", str(schema), "--url", service.url, "--request-timeout=60", "-H", f"Authorization: Bearer {token()}"]
    limits = ["--max-examples", "15", "--seed", "1", "--phases", "examples,coverage,fuzzing", "--no-color"]
    done = subprocess.run(
        [program, *asked, *limits], capture_output=True, text=True, timeout=180, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout
    assert "9 selected / 9 total" in done.stdout
