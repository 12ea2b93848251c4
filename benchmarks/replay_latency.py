"""Latency of a 50-item replay and refusals per second, against a running deployment.

`gate up` prints the variables; then: `python benchmarks/replay_latency.py < variables.json`
(one JSON object with BASE_URL, DATABASE_URL and TRANSBOT_HMAC_SECRET). Prints the median of each run and over the runs.
A worker has to run: each replay is measured after the run before it has ended.
"""

import asyncio
import hashlib
import hmac
import http.client
import json
import statistics
import sys
import time
import uuid
from urllib.parse import urlsplit

import psycopg

RUNS = 5
REPLAYS_PER_RUN = 20
ITEMS = 50
CONNECTIONS = 16
REFUSAL_SECONDS = 2.0
SETTLE_LIMIT_S = 20.0


def signed(fields: dict[str, object], secret: str) -> tuple[bytes, dict[str, str]]:
    body = json.dumps(fields).encode()
    mac = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return body, {"Content-Type": "application/json", "X-Transbot-Signature": mac}


def new_company(db: psycopg.Connection[tuple[object, ...]], items: int) -> str:
    """A tenant that the outbox is on for, with dead letters that nothing will deliver meanwhile."""
    company = str(uuid.uuid4())
    db.execute("INSERT INTO companies (id, name) VALUES (%s, 'drill-bench')", [company])
    db.execute("INSERT INTO feature_flags (key, company_id, enabled) VALUES ('outbox.enabled', %s, true)", [company])
    db.execute(
        "INSERT INTO dead_letter_queue (company_id, event_type, payload, error_type)"
        " SELECT %s, 'drill.bench', '{}', 'bench' FROM generate_series(1, %s)",
        [company, items],
    )
    return company


def replay_latencies(url: str, secret: str, db: psycopg.Connection[tuple[object, ...]]) -> list[float]:
    """Milliseconds of 50-item replays, one after the other on one connection, each of a tenant of its own."""
    target = urlsplit(url)
    connection = http.client.HTTPConnection(str(target.hostname), target.port, timeout=30)
    took = []
    for company in [new_company(db, ITEMS) for _ in range(REPLAYS_PER_RUN)]:
        body, headers = signed({"company_id": company, "max": ITEMS}, secret)
        started = time.perf_counter()
        connection.request("POST", f"{target.path}/dlq-replay", body, headers)
        answer = connection.getresponse()
        content = json.loads(answer.read())
        took.append((time.perf_counter() - started) * 1000)
        if answer.status != 200 or content["target_count"] != ITEMS:
            raise SystemExit(f"a replay answered {answer.status}: {content}")
        wait_settled(db, content["replay_run_id"])
    return took


def wait_settled(db: psycopg.Connection[tuple[object, ...]], run_id: str) -> None:
    """Let the worker finish the run: what is measured is a replay, not the backlog that the last ones left behind."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while db.execute("SELECT 1 FROM replay_runs WHERE id = %s AND status = 'started'", [run_id]).fetchone():
        if time.monotonic() > deadline:
            raise SystemExit(f"run {run_id} has not ended after {SETTLE_LIMIT_S} s; is a worker running?")
        time.sleep(0.01)


async def refusals_per_second(url: str, body: bytes, headers: dict[str, str], status: int) -> float:
    """Answers of that status per second over keep-alive connections that each wait for their answer."""
    target = urlsplit(url)
    head = [f"POST {target.path}/dlq-replay HTTP/1.1", f"Host: {target.netloc}", f"Content-Length: {len(body)}"]
    request = "\r\n".join([*head, *(f"{k}: {v}" for k, v in headers.items())]).encode() + b"\r\n\r\n" + body
    ends = time.perf_counter() + REFUSAL_SECONDS

    async def loop() -> int:
        reader, writer = await asyncio.open_connection(target.hostname, target.port)
        count = 0
        while time.perf_counter() < ends:
            writer.write(request)
            received = await reader.readuntil(b"\r\n\r\n")
            if not received.startswith(f"HTTP/1.1 {status} ".encode()):
                raise SystemExit(f"wanted {status}, got {received[:200]!r}")
            length = int(received.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            count += 1
        writer.close()
        return count

    counts = await asyncio.gather(*(loop() for _ in range(CONNECTIONS)))
    return sum(counts) / REFUSAL_SECONDS


def main() -> None:
    variables = json.loads(sys.stdin.readline())
    url, secret = variables["BASE_URL"], variables["TRANSBOT_HMAC_SECRET"].partition(",")[0]
    medians, limited, unknown = [], [], []
    with psycopg.connect(variables["DATABASE_URL"], autocommit=True) as db:
        for number in range(1, RUNS + 1):
            took = sorted(replay_latencies(url, secret, db))
            medians.append(statistics.median(took))
            company = new_company(db, 0)
            body, headers = signed({"company_id": company, "dry_run": True}, secret)
            for _ in range(3):
                replay_once(url, body, headers)
            limited.append(asyncio.run(refusals_per_second(url, body, headers, 429)))
            headers["X-Transbot-Signature"] = "0" * 64
            unknown.append(asyncio.run(refusals_per_second(url, body, headers, 401)))
            print(
                f"run {number}: {ITEMS}-item replay p50 {medians[-1]:.2f} ms, p95 {took[int(len(took) * 0.95)]:.2f} ms;"
                f" 429 {limited[-1]:.0f}/s; 401 {unknown[-1]:.0f}/s"
            )
    print(
        f"median of {RUNS} runs: replay p50 {statistics.median(medians):.2f} ms;"
        f" 429 {statistics.median(limited):.0f}/s; 401 {statistics.median(unknown):.0f}/s"
    )


def replay_once(url: str, body: bytes, headers: dict[str, str]) -> None:
    target = urlsplit(url)
    connection = http.client.HTTPConnection(str(target.hostname), target.port, timeout=30)
    connection.request("POST", f"{target.path}/dlq-replay", body, headers)
    connection.getresponse().read()
    connection.close()


if __name__ == "__main__":
    main()
