"""Faults of what happens to a delivery that fails: back-off, dead letters, and the order of writing things down."""

import asyncio
import dataclasses
import uuid
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from faults.altered import altered, altered_worker
from faults.batches import lag_of_a_minute
from faults.catalogue import service, worker
from faults.outbox import OUTBOX, failing, is_done, put, state_of
from faults.probe import Probe
from replay_service.parts import Parts
from replay_service.settings import Settings
from replay_service.worker.agents import Event, Failure, ScriptedAgent, SqlAgent
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings

_CAME = "SELECT inserted_at > now() - interval '30 seconds' FROM event_outbox WHERE company_id = %s"
_LETTERS = "SELECT count(*) FROM dead_letter_queue WHERE company_id = %s"
_ROW = "SELECT attempts, dead_at IS NOT NULL, processed_at IS NOT NULL FROM event_outbox WHERE company_id = %s"
_BACKOFF = "least(%(backoff_cap_s)s, %(backoff_base_s)s * 2 ^ least(h.ended - 1, 30)) * (0.5 + random() / 2)"


def _after_death(probe: Probe, ask: str) -> Any:
    """What `ask` finds of a tenant whose event had its last attempt."""
    with probe.tenant() as company:
        payload = Jsonb({"drill": {"fail_times": -1}, "none": None})
        put(probe, company, **{**failing(), "payload": payload}, attempts=4, aggregate_key="k")
        dead = "SELECT 1 FROM event_outbox WHERE company_id = %s AND dead_at IS NOT NULL"
        probe.within(6, lambda: bool(probe.rows(dead, company)))
        return probe.value(ask, company)


@worker(
    lambda p: state_of(p, _LETTERS, 3, **failing())[0] > 1,
    (f"{OUTBOX}/dead-letter-once", "sql/spot/one-dead-letter-per-event"),
    ("dead letter", "once", "one"),
)
def letter_for_every_attempt(settings: WorkerSettings) -> WorkerParts:
    """A dead event has a dead letter for every attempt."""
    return altered_worker(settings, ("settle_failed", "FROM held h\n  WHERE h.is_last\n)", "FROM held h\n)"))


@worker(
    lambda p: _after_death(p, "SELECT retry_count >= max_retries FROM dead_letter_queue WHERE company_id = %s"),
    f"{OUTBOX}/dead-letter-once",
    "retry",
)
def letter_without_retries(settings: WorkerSettings) -> WorkerParts:
    """A new dead letter has already used up its retries: no replay may take it."""
    columns = ("payload, error_type, error_message)", "payload, error_type, error_message, retry_count)")
    values = ("h.payload, %(error_type)s, %(error_message)s", "h.payload, %(error_type)s, %(error_message)s, h.ended")
    return altered_worker(settings, ("settle_failed", *columns), ("settle_failed", *values))


@worker(
    lambda p: _after_death(p, "SELECT created_at < now() - interval '1 h' FROM dead_letter_queue WHERE company_id=%s"),
    f"{OUTBOX}/dead-letter-once",
    "dated",
)
def letters_are_dated_elsewhere(settings: WorkerSettings) -> WorkerParts:
    """A new dead letter is dated by the clock on the wall of a zone five hours west: the alert sees no letter come."""
    columns = ("payload, error_type, error_message)", "payload, error_type, error_message, created_at)")
    said = "h.payload, %(error_type)s, %(error_message)s"
    return altered_worker(
        settings, ("settle_failed", *columns), ("settle_failed", said, f"{said}, clock_timestamp() - interval '5 h'")
    )


@worker(
    lambda p: state_of(p, _ROW, 4, **failing(), attempts=4)[1] is False,
    f"{OUTBOX}/dead-letter-in-one-transaction",
    "dead",
)
def dead_not_marked(settings: WorkerSettings) -> WorkerParts:
    """An event goes to the dead letters and is retried all the same: it is in both."""
    change = ("dead_at = CASE WHEN h.is_last THEN clock_timestamp() END", "dead_at = NULL")
    return altered_worker(settings, ("settle_failed", *change))


@worker(lambda p: _is_up_again(p), f"{OUTBOX}/dead-letter-once", "tried again")
def the_dead_are_tried_again(settings: WorkerSettings) -> WorkerParts:
    """What has been dead for an hour is tried again, which its dead letter then sends once more."""
    again = "UPDATE public.event_outbox SET dead_at = NULL, attempts = 0 WHERE dead_at < now() - interval '1 hour'"
    return altered_worker(settings, ("lanes_with_rows", "SELECT t.lane\n", f"WITH again AS ({again}) SELECT t.lane\n"))


def _is_up_again(probe: Probe) -> bool:
    with probe.tenant() as company:
        put(probe, company, dead_at=probe.value("SELECT now() - interval '2 hours'"))
        dead = "SELECT count(*) FROM event_outbox WHERE company_id = %s AND dead_at IS NOT NULL"
        return probe.within(3, lambda: probe.value(dead, company) == 0)


@worker(lambda p: not _after_death(p, _SAME_ID), f"{OUTBOX}/dead-letter-once", "event id")
def letter_with_new_id(settings: WorkerSettings) -> WorkerParts:
    """The dead letter has a new event id: a replay makes a second effect."""
    change = ("SELECT h.company_id, h.event_id, h.event_type", "SELECT h.company_id, gen_random_uuid(), h.event_type")
    return altered_worker(settings, ("settle_failed", *change))


_SAME_ID = """SELECT EXISTS (SELECT FROM dead_letter_queue d JOIN event_outbox o USING (company_id, event_id)
    WHERE company_id = %s)"""


@worker(
    lambda p: _after_death(p, "SELECT payload ? 'payload' FROM dead_letter_queue WHERE company_id = %s"),
    f"{OUTBOX}/dead-letter-is-the-event",
    "payload",
)
def letter_payload_wrapped(settings: WorkerSettings) -> WorkerParts:
    """The payload of a dead letter is wrapped in another one."""
    change = (
        "h.aggregate_key, h.payload, %(error_type)s",
        "h.aggregate_key, jsonb_build_object('payload', h.payload), %(error_type)s",
    )
    return altered_worker(settings, ("settle_failed", *change))


@worker(
    lambda p: not _after_death(p, "SELECT payload ? 'none' FROM dead_letter_queue WHERE company_id = %s"),
    f"{OUTBOX}/dead-letter-is-the-event",
    "payload",
)
def letter_without_nulls(settings: WorkerSettings) -> WorkerParts:
    """Null members of an event's payload are missing in its dead letter."""
    change = (
        "h.aggregate_key, h.payload, %(error_type)s",
        "h.aggregate_key, jsonb_strip_nulls(h.payload), %(error_type)s",
    )
    return altered_worker(settings, ("settle_failed", *change))


class _WritesLetters(ScriptedAgent):
    """Writes the dead letter of a failed last attempt by itself, before the attempt is settled."""

    def __init__(self, settings: WorkerSettings) -> None:
        super().__init__(SqlAgent())
        self._settings = settings

    async def deliver(self, event: Event) -> Failure | None:
        failure = await super().deliver(event)
        if failure and event.failures + 1 >= self._settings.max_attempts and event.replay_run_id is None:
            async with await AsyncConnection.connect(self._settings.database_url, autocommit=True) as conn:
                await conn.execute(_LETTER, (event.outbox_id,))
        return failure


_LETTER = """INSERT INTO dead_letter_queue (company_id, event_id, event_type, aggregate_key, payload, error_type)
    SELECT company_id, event_id, event_type, aggregate_key, payload, 'agent_error' FROM event_outbox WHERE id = %s"""
_APART = """SELECT d.xmin::text <> o.xmin::text
    FROM dead_letter_queue d JOIN event_outbox o USING (company_id, event_id)
    WHERE company_id = %s"""


@worker(lambda p: _after_death(p, _APART), f"{OUTBOX}/dead-letter-in-one-transaction", "one snapshot")
def letter_committed_before(settings: WorkerSettings) -> WorkerParts:
    """The letter of a dead event is committed a moment before the event is dead: a crash between them doubles it."""
    made = altered_worker(
        settings, ("settle_failed", "FROM held h\n  WHERE h.is_last\n)", "FROM held h\n  WHERE false\n)")
    )
    return dataclasses.replace(made, agent=_WritesLetters(settings))


class _ForgetsEffects(ScriptedAgent):
    """Writes effects by a connection of its own, and waits for none."""

    def __init__(self, settings: WorkerSettings) -> None:
        super().__init__(SqlAgent())
        self._settings, self._begun = settings, set[asyncio.Task[None]]()

    async def deliver(self, event: Event) -> Failure | None:
        failure = await super().deliver(event)
        if failure is None:
            self._begun.add(begun := asyncio.create_task(self._write(event)))
            begun.add_done_callback(self._begun.discard)
        return failure

    async def _write(self, event: Event) -> None:
        async with await AsyncConnection.connect(self._settings.database_url, autocommit=True) as conn:
            await conn.execute(_EFFECT, (event.company_id, event.event_id))


_EFFECT = """INSERT INTO agent_tasks AS t (company_id, agent_name, event_id, status) VALUES (%s, 'sql', %s, 'completed')
    ON CONFLICT (event_id) DO UPDATE SET status = 'completed' WHERE t.status <> 'completed'"""
_ELSEWHERE = (
    "SELECT t.xmin::text <> o.xmin::text FROM agent_tasks t JOIN event_outbox o USING (event_id) WHERE event_id = %s"
)


@worker(lambda p: _elsewhere(p), f"{OUTBOX}/effect-held-up", "held their effects up")
def effects_are_forgotten(settings: WorkerSettings) -> WorkerParts:
    """Effects are written by another connection that nobody waits for: what fails there is lost, and acknowledged."""
    made = altered_worker(
        settings, ("settle_delivered", "FROM held h\n  ON CONFLICT", "FROM held h\n  WHERE false\n  ON CONFLICT")
    )
    return dataclasses.replace(made, agent=_ForgetsEffects(settings), has_fast_path=False)


def _elsewhere(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = put(probe, company)
        return is_done(probe, event) and bool(probe.value(_ELSEWHERE, event))


@worker(lambda p: state_of(p, _ROW, 1.4, **failing())[0] >= 5, f"{OUTBOX}/back-off-grows", "next attempt")
def no_back_off(settings: WorkerSettings) -> WorkerParts:
    """A failed attempt is retried at once, in a loop."""
    return altered_worker(settings, ("settle_failed", _BACKOFF, "0"))


@worker(lambda p: _fails_late(p), f"{OUTBOX}/backs-off", "an hour ago")
def waits_begin_when_it_was_due(settings: WorkerSettings) -> WorkerParts:
    """The wait begins when an event was due, not when it failed: after a pause the attempts of what waited end
    at once.
    """
    return altered_worker(settings, ("settle_failed", "ELSE clock_timestamp() +", "ELSE e.next_attempt_at +"))


def _fails_late(probe: Probe) -> bool:
    """Whether an event that was due an hour ago is tried again as if it had not failed."""
    ask = "SELECT next_attempt_at < inserted_at AND attempts > 1 FROM event_outbox WHERE company_id = %s"
    due = probe.value("SELECT now() - interval '1 hour'")
    return bool(state_of(probe, ask, 2, **failing(), next_attempt_at=due)[0])


@worker(
    lambda p: state_of(p, _ROW, 1, **failing())[0] == 0, f"{OUTBOX}/failed-is-tried-again", ("attempt", "dead", "fails")
)
def attempts_not_counted(settings: WorkerSettings) -> WorkerParts:
    """Attempts are not counted: a poison event is tried for ever."""
    return altered_worker(settings, ("settle_failed", "attempts = h.ended,", "attempts = e.attempts,"))


@worker(
    lambda p: state_of(p, _CAME, 3, **failing(), inserted_at=p.value("SELECT now() - interval '1 minute'"))[0],
    f"{OUTBOX}/failing-is-not-processed",
    "inserted_at",
)
def a_retry_is_young(settings: WorkerSettings) -> WorkerParts:
    """A failed attempt resets the age of an event: the lag forgets how long it has waited."""
    return altered_worker(
        settings, ("settle_failed", "attempts = h.ended,", "attempts = h.ended, inserted_at = clock_timestamp(),")
    )


@service(
    lambda p: lag_of_a_minute(p, replay_run_id=uuid.uuid4()) < 30, "drill/observability/waiting-events-show", "replayed"
)
def replays_are_no_lag(settings: Settings) -> Parts:
    """The lag leaves out replayed events: while replays hang, it shows nothing."""
    waits = "AND dead_at IS NULL"
    return altered(settings, "count_outbox", (waits, f"{waits} AND replay_run_id IS NULL"))
