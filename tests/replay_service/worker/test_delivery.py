"""Delivery: effects, order, retries, dead letters, held tenants, several workers, death."""

import signal
import subprocess

import psycopg

from tests.replay_service.worker.harness import Bench, Workers
from tests.waiting import until

FINISH_ORDER = "SELECT id FROM event_outbox WHERE processed_at IS NOT NULL ORDER BY processed_at, id"


def effects(bench: Bench) -> int:
    return int(bench.one("SELECT count(*) FROM agent_tasks WHERE status = 'completed'"))


def test_an_event_has_its_effect_at_once(bench: Bench, workers: Workers) -> None:
    """An event has one completed effect well within 2 s, in the transaction that acknowledges it."""
    workers.start()
    event = bench.emit(bench.company("plain"))
    until(bench.settled, 2.0)
    task = bench.one("SELECT status, xmin::text FROM agent_tasks WHERE event_id = %s", event)
    assert task == ("completed", bench.one("SELECT xmin::text FROM event_outbox WHERE event_id = %s", event))


def test_polling_delivers_without_a_notification(bench: Bench, workers: Workers) -> None:
    """An event is found by polling where its notification is lost."""
    bench.conn.execute("ALTER TABLE event_outbox DISABLE TRIGGER event_outbox_wake")
    workers.start()
    bench.emit(bench.company())
    until(bench.settled, 2.0)


def test_two_rows_of_one_event_have_one_effect(bench: Bench, workers: Workers) -> None:
    """Rows that share an event id are all acknowledged and leave one effect."""
    company = bench.company()
    event = bench.emit(company)
    bench.emit(company, event_id=event)
    bench.one(
        "INSERT INTO agent_tasks (company_id, event_id, status) VALUES (%s, gen_random_uuid(), 'queued') RETURNING 1",
        company,
    )
    workers.start()
    until(bench.settled)
    assert bench.all("SELECT status FROM agent_tasks WHERE event_id = %s", event) == ["completed"]


def test_an_unfinished_task_of_the_event_becomes_its_effect(bench: Bench, workers: Workers) -> None:
    """A task of the event that another producer left queued is completed, not passed over."""
    company = bench.company()
    event = bench.emit(company)
    bench.one(
        "INSERT INTO agent_tasks (company_id, event_id, status) VALUES (%s, %s, 'queued') RETURNING 1", company, event
    )
    others = [bench.emit(company) for _ in range(5)]
    workers.start()
    until(bench.settled)
    assert bench.one("SELECT status FROM agent_tasks WHERE event_id = %s", event) == "completed"
    assert effects(bench) == 1 + len(others)


def test_a_key_is_delivered_in_order_around_failures(bench: Bench, workers: Workers) -> None:
    """Later events of a key wait for a failing one; other keys and unordered events do not."""
    company = bench.company()
    ids = "SELECT id FROM event_outbox WHERE aggregate_key = 'a' ORDER BY id"
    for n in range(6):
        bench.emit(company, key="a", script={"fail_times": 2} if n == 2 else None)
    other = bench.emit(company, key="b")
    free = bench.emit(company)
    workers.start()
    workers.start()
    until(bench.settled)
    assert bench.all(FINISH_ORDER.replace("WHERE", "WHERE aggregate_key = 'a' AND")) == bench.all(ids)
    first_done = "SELECT min(processed_at) FROM event_outbox WHERE event_id = ANY(%s)"
    failing = "SELECT processed_at FROM event_outbox WHERE event_type LIKE 'drill.%%'"
    assert bench.one(first_done, [other, free]) < bench.one(failing + " AND %s::text IS NULL", None)


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


def test_the_last_failure_makes_a_dead_letter(bench: Bench, workers: Workers) -> None:
    """After the last attempt: dead in the outbox and one dead letter, in one transaction; nobody is blocked."""
    company = bench.company()
    event = bench.emit(company, key="k", script={"fail_times": -1})
    follower = bench.emit(company, key="k")
    workers.start(WORKER_MAX_ATTEMPTS="3", WORKER_BACKOFF_BASE_S="0.05")
    until(bench.settled)
    dead = bench.one("SELECT attempts, dead_at IS NOT NULL, xmin::text FROM event_outbox WHERE event_id = %s", event)
    letters = bench.all(
        "SELECT status, error_type, retry_count, aggregate_key, payload ? 'drill', xmin::text FROM dead_letter_queue"
        " WHERE event_id = %s",
        event,
    )
    assert dead[:2] == (3, True)
    assert letters == [("pending", "drill_failure", 0, "k", True, dead[2])]
    assert bench.one("SELECT status FROM agent_tasks WHERE event_id = %s", event) == "failed"
    assert bench.one("SELECT status FROM agent_tasks WHERE event_id = %s", follower) == "completed"


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


def test_a_row_that_is_not_due_waits_and_holds_back_its_key(bench: Bench, workers: Workers) -> None:
    """No path ignores next_attempt_at, and followers of a waiting head wait with it."""
    company = bench.company()
    later = bench.emit(company, key="k", next_attempt_at="2999-01-01")
    bench.emit(company, key="k")
    probe = bench.emit(company)
    workers.start()
    until(lambda: bench.one("SELECT processed_at FROM event_outbox WHERE event_id = %s", probe))
    assert effects(bench) == 1
    bench.conn.execute("UPDATE event_outbox SET next_attempt_at = now() WHERE event_id = %s", (later,))
    until(bench.settled)


def test_a_foreign_lease_is_respected_until_it_ends(bench: Bench, workers: Workers) -> None:
    """A row in flight elsewhere is left alone; once its lease is over it is claimed again."""
    company = bench.company()
    event = bench.emit(company, claimed_until="2999-01-01")
    probe = bench.emit(company)
    workers.start()
    until(lambda: bench.one("SELECT processed_at FROM event_outbox WHERE event_id = %s", probe))
    assert effects(bench) == 1
    bench.conn.execute("UPDATE event_outbox SET claimed_until = now() WHERE event_id = %s", (event,))
    until(bench.settled)


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


def test_held_tenants_wait_and_come_back_in_order(bench: Bench, workers: Workers) -> None:
    """Rows of a paused or switched-off tenant are not touched, hold up nobody, and are delivered in order later."""
    paused, off, on = bench.company(), bench.company(), bench.company()
    bench.conn.execute("INSERT INTO agent_controls (company_id, agents_paused) VALUES (%s, true)", (paused,))
    bench.conn.execute(
        "INSERT INTO feature_flags (key, company_id, enabled) VALUES ('outbox.enabled', %s, false)", (off,)
    )
    for _ in range(40):
        for company in (paused, off):
            bench.emit(company, key="k")
    workers.start(WORKER_WINDOW="10")
    probe = bench.emit(on)
    until(lambda: bench.one("SELECT processed_at FROM event_outbox WHERE event_id = %s", probe), 2.0)
    assert effects(bench) == 1
    bench.conn.execute("UPDATE agent_controls SET agents_paused = false")
    bench.conn.execute("UPDATE feature_flags SET enabled = true")
    until(bench.settled)
    events = "SELECT event_id FROM event_outbox WHERE company_id = %s ORDER BY id"
    tasks = "SELECT event_id FROM agent_tasks WHERE company_id = %s ORDER BY id"
    assert bench.all(events, paused) == bench.all(tasks, paused)
    assert bench.all(events, off) == bench.all(tasks, off)


def test_a_global_pause_holds_everybody(bench: Bench, workers: Workers) -> None:
    """While the row of everybody is paused nothing is delivered, and afterwards everything is."""
    bench.conn.execute("UPDATE agent_controls SET agents_paused = true")
    workers.start()
    company = bench.company()
    for script in (None, {"fail_times": 0}):
        bench.emit(company, script=script)
    process = workers.start()  # a second start: time in which the first had every chance
    assert process.poll() is None
    assert effects(bench) == 0
    bench.conn.execute("UPDATE agent_controls SET agents_paused = false")
    until(bench.settled)


def test_scripts_bind_drill_companies_only(bench: Bench, workers: Workers) -> None:
    """The same event of a company that is no drill is ordinary."""
    event = bench.emit(bench.company("acme"), script={"fail_times": -1})
    workers.start()
    until(bench.settled)
    assert bench.one("SELECT status FROM agent_tasks WHERE event_id = %s", event) == "completed"


def test_delays_hold_up_nobody(bench: Bench, workers: Workers) -> None:
    """Events behind many delayed ones are delivered while these sleep."""
    company = bench.company()
    for _ in range(40):
        bench.emit(company, script={"fail_times": 0, "delay_ms": 1500})
    workers.start()
    probe = bench.emit(company)
    until(lambda: bench.one("SELECT processed_at FROM event_outbox WHERE event_id = %s", probe), 1.0)
    until(bench.settled, 4.0)


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


def test_two_workers_killed_again_and_again_lose_nothing(bench: Bench, workers: Workers) -> None:
    """SIGKILL in the middle of deliveries, several times: every event has one effect, order per key holds."""
    companies = [bench.company() for _ in range(3)]
    for n in range(30):
        for company in companies:
            bench.emit(company, key=f"k{n % 4}", script={"fail_times": 0, "delay_ms": 10} if n % 3 else None)
    environment = {"WORKER_LEASE_S": "1"}
    for _ in range(4):
        first, second = workers.start(**environment), workers.start(**environment)
        for process in (first, second):
            workers.kill(process)
    workers.start(**environment)
    workers.start(**environment)
    until(bench.settled, 20.0)
    assert bench.one("SELECT count(*), count(DISTINCT event_id) FROM agent_tasks WHERE status = 'completed'") == (
        90,
        90,
    )
    out_of_order = (
        "SELECT count(*) FROM event_outbox a JOIN event_outbox b ON a.company_id = b.company_id"
        " AND a.aggregate_key = b.aggregate_key AND a.id < b.id AND a.processed_at > b.processed_at"
    )
    assert bench.one(out_of_order) == 0


def test_a_frozen_worker_holds_up_nothing_for_long(bench: Bench, workers: Workers) -> None:
    """A worker that is stopped like a hung machine loses its leases, and another takes over."""
    event = bench.emit(bench.company(), script={"fail_times": 0, "delay_ms": 300})
    frozen = workers.start(WORKER_LEASE_S="1")
    until(lambda: bench.one("SELECT claimed_until FROM event_outbox WHERE event_id = %s", event))
    frozen.send_signal(signal.SIGSTOP)
    workers.start()
    until(bench.settled, 5.0)
    assert effects(bench) == 1


def test_sigterm_gives_leases_back(bench: Bench, workers: Workers) -> None:
    """SIGTERM ends a worker in under 5 s with exit code 0; what it could not finish is pending at once."""
    event = bench.emit(bench.company(), script={"fail_times": 0, "delay_ms": 5000})
    process = workers.start()
    until(lambda: bench.one("SELECT claimed_until > now() FROM event_outbox WHERE event_id = %s", event))
    process.terminate()
    assert process.wait(5.0) == 0
    assert not bench.one("SELECT claimed_until > now() FROM event_outbox WHERE event_id = %s", event)
    assert bench.one("SELECT count(*) FROM worker_heartbeats") == 0


def test_a_worker_outlives_lost_connections(bench: Bench, workers: Workers) -> None:
    """Connections cut by the server are made again, and delivery goes on."""
    process = workers.start()
    bench.conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'replay-worker'"
    )
    bench.emit(bench.company())
    until(bench.settled, 5.0)
    assert process.poll() is None


def test_a_late_commit_of_a_lower_id_is_delivered(bench: Bench, workers: Workers, migrated_url: str) -> None:
    """A row with a lower id that commits after higher ones were delivered is not lost."""
    company = bench.company()
    workers.start()
    with psycopg.connect(migrated_url) as slow:
        slow.execute("INSERT INTO event_outbox (company_id, event_type) VALUES (%s, 'x')", (company,))
        bench.emit(company)
        until(lambda: effects(bench) == 1)
        slow.commit()
    until(bench.settled)
    assert effects(bench) == 2


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
