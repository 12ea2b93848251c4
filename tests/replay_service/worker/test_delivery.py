"""Delivery by a worker with settings of its own: leases, windows, back-off, dead letters. The drills show the rest."""

import subprocess

from tests.replay_service.worker.harness import Bench, Workers
from tests.waiting import until


def effects(bench: Bench) -> int:
    return int(bench.one("SELECT count(*) FROM agent_tasks WHERE status = 'completed'"))


def test_thousands_of_followers_wait_and_others_pass(bench: Bench, workers: Workers) -> None:
    """More blocked followers than a window holds neither overtake their head nor hold up another key."""
    company = bench.company()
    bench.emit(company, key="poison", script={"fail_times": -1})
    bench.conn.execute(
        "INSERT INTO event_outbox (company_id, event_type, aggregate_key)"
        " SELECT %s, 'x', 'poison' FROM generate_series(1, 900)",
        (company,),
    )
    last = bench.emit(company, key="healthy")
    workers.start(WORKER_WINDOW="50", WORKER_BACKOFF_BASE_S="0.3")
    until(lambda: bench.one("SELECT processed_at FROM event_outbox WHERE event_id = %s", last), 2.0)
    assert not bench.one(
        "SELECT count(*) FROM event_outbox WHERE aggregate_key = 'poison' AND processed_at IS NOT NULL"
    )
    until(bench.settled)
    assert (
        bench.one("SELECT count(*) FROM event_outbox WHERE processed_at < (SELECT max(dead_at) FROM event_outbox)") == 1
    )


def test_backoff_grows_and_is_capped(bench: Bench, workers: Workers) -> None:
    """The wait after attempt n is half..whole of base * 2^(n-1), capped, by the database clock."""
    bench.conn.execute("CREATE TABLE waits (attempts int, wait_s float8)")
    bench.conn.execute(
        "CREATE FUNCTION note_wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.attempts > OLD.attempts AND NEW.dead_at IS NULL AND NEW.processed_at IS NULL THEN"
        " INSERT INTO public.waits VALUES (NEW.attempts, extract(epoch FROM NEW.next_attempt_at - clock_timestamp()));"
        " END IF; RETURN NEW; END $$"
    )
    bench.conn.execute("ALTER FUNCTION note_wait() SECURITY DEFINER")
    bench.conn.execute("CREATE TRIGGER note BEFORE UPDATE ON event_outbox FOR EACH ROW EXECUTE FUNCTION note_wait()")
    bench.emit(bench.company(), script={"fail_times": 5})
    workers.start(WORKER_MAX_ATTEMPTS="9", WORKER_BACKOFF_BASE_S="0.1", WORKER_BACKOFF_CAP_S="0.4")
    until(bench.settled)
    waits = dict(bench.all("SELECT attempts, wait_s FROM waits"))
    whole = {1: 0.1, 2: 0.2, 3: 0.4, 4: 0.4, 5: 0.4}
    assert set(waits) == set(whole)
    assert all(whole[n] / 2 - 0.02 <= wait <= whole[n] + 0.001 for n, wait in waits.items()), waits


def test_a_settlement_without_the_lease_changes_nothing(bench: Bench, workers: Workers) -> None:
    """A worker whose lease was taken over settles nothing: the new holder's token fences it off."""
    event = bench.emit(bench.company(), script={"fail_times": 0, "delay_ms": 600})
    workers.start()
    held = "SELECT claimed_until > now() FROM event_outbox WHERE event_id = %s"
    until(lambda: bench.one(held, event))
    bench.conn.execute(
        "UPDATE event_outbox SET claim_token = gen_random_uuid(), claimed_until = now() + interval '4 s'"
        " WHERE event_id = %s",
        (event,),
    )
    # the old holder is long done with its attempt of 600 ms, and the new lease still stands
    still_long = "SELECT claimed_until > now() + interval '2 s' FROM event_outbox WHERE event_id = %s"
    until(lambda: not bench.one(still_long, event))
    first = bench.one("SELECT processed_at, attempts FROM event_outbox WHERE event_id = %s", event)
    until(bench.settled)
    assert first == (None, 0)
    assert effects(bench) == 1


def test_scripts_bind_drill_companies_only(bench: Bench, workers: Workers) -> None:
    """The same event of a company that is no drill is ordinary."""
    event = bench.emit(bench.company("acme"), script={"fail_times": -1})
    workers.start()
    until(bench.settled)
    assert bench.one("SELECT status FROM agent_tasks WHERE event_id = %s", event) == "completed"


def test_an_effect_that_the_database_refuses_is_a_failed_attempt(bench: Bench, workers: Workers) -> None:
    """One event whose effect is refused ends as a dead letter; the others of its window are delivered."""
    company = bench.company()
    bad = bench.emit(company)
    bench.conn.execute(f"ALTER TABLE agent_tasks ADD CONSTRAINT refused CHECK (event_id <> '{bad}')")
    for _ in range(20):
        bench.emit(company)
    workers.start(WORKER_MAX_ATTEMPTS="2", WORKER_BACKOFF_BASE_S="0.05")
    until(bench.settled)
    assert effects(bench) == 20
    assert bench.all("SELECT event_id::text, error_type FROM dead_letter_queue") == [(bad, "effect_refused")]


def test_sigterm_gives_leases_back(bench: Bench, workers: Workers) -> None:
    """SIGTERM ends a worker in under 5 s with exit code 0; what it could not finish is pending at once."""
    event = bench.emit(bench.company(), script={"fail_times": 0, "delay_ms": 5000})
    process = workers.start()
    until(lambda: bench.one("SELECT claimed_until > now() FROM event_outbox WHERE event_id = %s", event))
    process.terminate()
    assert process.wait(5.0) == 0
    assert not bench.one("SELECT claimed_until > now() FROM event_outbox WHERE event_id = %s", event)
    assert bench.one("SELECT count(*) FROM worker_heartbeats") == 0


def test_configuration_errors_exit_3(workers: Workers) -> None:
    """A wrong environment is refused with the variable's name and exit code 3."""
    import os  # noqa: PLC0415
    import sys  # noqa: PLC0415

    for name, value in {"AGENT": "carrier-pigeon", "WORKER_WINDOW": "many", "LOG_LEVEL": "loud"}.items():
        done = subprocess.run(
            [sys.executable, "-m", "replay_service", "work"],
            env={"PATH": os.environ["PATH"], "DATABASE_URL": workers.url, name: value},
            capture_output=True,
            timeout=10,
            check=False,
            text=True,
        )
        assert done.returncode == 3
        assert name in done.stderr
