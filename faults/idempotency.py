"""Faults of idempotency: keys that are forgotten, shared, or answered for another request."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from faults.altered import altered, around, instead_of
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import REQUEST, remembering, requesting
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.idempotency import Outcome, Run, begin, finish
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.signatures import Signature, check_signature
from replay_service.validation import ReplayRequest, read_replay

KEYS = "drill/idempotency"


def _twice(probe: Probe, first: Mapping[str, Any], second: Mapping[str, Any], letters: int = 3) -> list[Any]:
    """The answers to two requests of a tenant with dead letters."""
    with probe.tenant() as company:
        probe.letters(company, letters)
        return [
            probe.replay(company, **{"max_items": 1, "idempotency_key": "w", **fields}) for fields in (first, second)
        ]


def _is_duplicate(probe: Probe, first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether the second request was answered as a duplicate of the first."""
    return _twice(probe, first, second)[1].json().get("duplicate") is True


@service(
    lambda p: _is_duplicate(p, {}, {"max_items": 2}),
    (f"{KEYS}/payload-max", f"{KEYS}/other-payload-refused"),
    ("422", "max"),
)
def payload_without_max(settings: Settings) -> Parts:
    """`max` is not part of the payload."""
    return _hashing(settings, lambda r: [r.company_id, r.force, r.dlq_ids, r.error_type])


@service(lambda p: _is_duplicate(p, {}, {"force": True}), f"{KEYS}/payload-force", ("422", "force"))
def payload_without_force(settings: Settings) -> Parts:
    """`force` is not part of the payload."""
    return _hashing(settings, lambda r: [r.company_id, r.max_items, r.dlq_ids, r.error_type])


@service(
    lambda p: _is_duplicate(p, {}, {"error_type": "timeout"}),
    (f"{KEYS}/payload-error-type", f"{KEYS}/beside-ids-error-type"),
    ("422", "error_type"),
)
def payload_without_error_type(settings: Settings) -> Parts:
    """`error_type` is not part of the payload."""
    return _hashing(settings, lambda r: [r.company_id, r.max_items, r.force, r.dlq_ids])


@service(
    lambda p: _is_duplicate(p, {"dlq_ids": _ids(1)}, {"dlq_ids": _ids(2)}),
    f"{KEYS}/payload-dlq-ids",
    ("422", "dlq_ids"),
)
def payload_without_ids(settings: Settings) -> Parts:
    """`dlq_ids` are not part of the payload: other items under the same key are never replayed."""
    return _hashing(settings, lambda r: [r.company_id, r.max_items, r.force, r.error_type])


@service(
    lambda p: _is_duplicate(p, {"error_type": "1x"}, {"max_items": 11, "error_type": "x"}),
    f"{KEYS}/payload-max",
    ("422", "max"),
)
def payload_without_gaps(settings: Settings) -> Parts:
    """The payload hash joins values without a separator: max 1 with `1x` equals max 11 with `x`."""
    return _hashing(settings, lambda r: [r.force, r.dlq_ids, f"{r.max_items}{r.error_type or ''}"])


@service(
    lambda p: _is_duplicate(p, {"error_type": "timeout"}, {"error_type": "Timeout"}),
    f"{KEYS}/payload-error-type",
    ("422", "error_type"),
)
def payload_folds_error_types(settings: Settings) -> Parts:
    """The payload hash ignores case, spaces and punctuation of `error_type`."""
    return _hashing(settings, lambda r: [r.max_items, r.force, r.dlq_ids, (r.error_type or "").casefold().strip()])


@service(lambda p: _is_duplicate(p, {}, {"error_type": "None"}), f"{KEYS}/payload-error-type", ("422", "error_type"))
def payload_spells_none(settings: Settings) -> Parts:
    """No `error_type` and the text `None` give the same payload hash."""
    return _hashing(settings, lambda r: [r.max_items, r.force, r.dlq_ids, str(r.error_type)])


@service(
    lambda p: _is_duplicate(p, {"dlq_ids": _ids(1, 2)}, {"dlq_ids": _ids(1, 3)}),
    f"{KEYS}/payload-dlq-ids",
    ("422", "dlq_ids"),
)
def payload_has_one_id(settings: Settings) -> Parts:
    """The payload hash covers only the first of `dlq_ids` and their number."""
    return _hashing(settings, lambda r: [r.max_items, r.force, r.error_type, len(r.dlq_ids or ()), *_first(1, r)])


@service(
    lambda p: _is_duplicate(p, {"dlq_ids": _ids(*range(1, 12))}, {"dlq_ids": _ids(*range(1, 11), 12)}),
    f"{KEYS}/payload-dlq-ids",
    ("422", "dlq_ids"),
)
def payload_has_ten_ids(settings: Settings) -> Parts:
    """The payload hash covers only the first ten of `dlq_ids`."""
    return _hashing(settings, lambda r: [r.max_items, r.force, r.error_type, *_first(10, r)])


def _first(number: int, request: ReplayRequest) -> tuple[str, ...]:
    return (request.dlq_ids or ())[:number]


def _ids(*numbers: int) -> list[str]:
    return [str(uuid.UUID(int=number)) for number in numbers]


def _hashing(settings: Settings, content: Callable[[ReplayRequest], list[Any]]) -> Parts:
    """The service whose payload hash covers what this function returns."""
    return requesting(settings, lambda request: _Hashed.of(request, content(request)))


@dataclasses.dataclass(frozen=True)
class _Hashed(ReplayRequest):
    """A request with a payload hash of its own."""

    content: str = ""

    @classmethod
    def of(cls, request: ReplayRequest, content: Any) -> _Hashed:
        values = {f.name: getattr(request, f.name) for f in dataclasses.fields(ReplayRequest)}
        return cls(**values, content=json.dumps(content))

    @property
    def payload_hash(self) -> str:
        return self.content


@service(
    lambda p: _spelt_twice(p) == 422, (f"{KEYS}/spelling-is-equal", f"{KEYS}/defaults-are-equal"), ("spelling", "422")
)
@instead_of("read_replay")
def payload_is_raw_bytes(raw: bytes) -> ReplayRequest:
    """The payload is compared as raw bytes: the same request in another spelling is refused."""
    return _Hashed.of(read_replay(raw), raw.decode("latin-1"))


def _spelt_twice(probe: Probe) -> int:
    with probe.tenant() as company:
        fields = {"company_id": company, "idempotency_key": "w", "max": 1}
        probe.send(json.dumps(fields).encode())
        return probe.send(json.dumps(fields, indent=1).encode()).status_code


@service(
    lambda p: _twice(p, {}, {"dry_run": False})[1].status_code == 422, f"{KEYS}/defaults-are-equal", ("default", "422")
)
def payload_before_defaults(settings: Settings) -> Parts:
    """Payloads are compared before defaults apply: `dry_run: false` is another request than none."""
    return _hashing_fields(settings, lambda fields: {n: str(v).lower() for n, v in sorted(fields.items())})


@service(
    lambda p: not _is_duplicate(p, {"dlq_ids": _ids(1, 2)}, {"dlq_ids": _ids(2, 1)}),
    "drill/idempotency/ids-are-a-set",
    ("order", "idempotency_key_reused"),
)
def order_of_ids_matters(settings: Settings) -> Parts:
    """The order of `dlq_ids` is part of the payload."""
    return _hashing_fields(settings, lambda fields: fields.get("dlq_ids"))


@service(
    lambda p: not _is_duplicate(p, {"dlq_ids": _ids(10)}, {"dlq_ids": [_ids(10)[0].upper()]}),
    "drill/idempotency/ids-are-a-set",
    ("upper case", "idempotency_key_reused"),
)
def case_of_ids_matters(settings: Settings) -> Parts:
    """The case of `dlq_ids` is part of the payload."""
    return _hashing_fields(settings, lambda fields: any(i != i.lower() for i in fields.get("dlq_ids", ())))


def _hashing_fields(settings: Settings, told: Callable[[dict[str, Any]], Any]) -> Parts:
    def read(raw: bytes) -> ReplayRequest:
        return _Hashed.of(read_replay(raw), [read_replay(raw).payload_hash, told(json.loads(raw))])

    return dataclasses.replace(build_parts(settings), read_replay=read)


@service(lambda p: _in_two_tenants(p), f"{KEYS}/scope-is-the-tenant", ("tenant", "scope", "duplicate"))
@instead_of("begin_run")
async def key_is_global(conn: Connection, request: ReplayRequest, started: Run) -> Mapping[str, Any] | None:
    """Keys are global: one tenant's request is answered with another tenant's run."""
    find = b"SELECT response FROM replay_runs WHERE idempotency_key = %s AND response IS NOT NULL LIMIT 1"
    row = await (await conn.execute(find, (started.key,))).fetchone()
    return dict(row[0]) if row else await begin(conn, request, started)


def _in_two_tenants(probe: Probe) -> bool:
    key = f"w-{uuid.uuid4()}"
    with probe.tenant() as one, probe.tenant() as other:
        probe.replay(one, idempotency_key=key)
        return bool(probe.replay(other, idempotency_key=key).json().get("company_id") == one)


@service(lambda p: _by_two_actors(p), f"{KEYS}/other-credentials-same-key", ("outbox rows", "same request"))
@instead_of("begin_run")
async def key_is_per_actor(conn: Connection, request: ReplayRequest, started: Run) -> Mapping[str, Any] | None:
    """A key belongs to the actor, not to the tenant: the same request with a token replays again."""
    return await begin(conn, request, dataclasses.replace(started, key=f"{started.actor}/{started.key}"[:200]))


def _by_two_actors(probe: Probe) -> bool:
    with probe.tenant() as company:
        body = json.dumps({"company_id": company, "idempotency_key": "w"}).encode()
        signed, token = probe.send(body), probe.send(body, probe.as_token(probe.environ["ADMIN_JWT"]))
        return bool(signed.json().get("replay_run_id") != token.json().get("replay_run_id"))


@service(lambda p: _lost_items(p), f"{KEYS}/duplicate-same-answer", ("items", "answer", "duplicate"))
def duplicate_is_read_anew(settings: Settings) -> Parts:
    """A duplicate says what the run is now, not what was answered."""
    change = ("response, status, target_count", "NULL::jsonb, status, target_count")
    return altered(settings, "find_run", change)


def _lost_items(probe: Probe) -> bool:
    first, second = (answer.json() for answer in _twice(probe, {}, {}))
    return bool(first["items"] and first["items"] != second.get("items"))


@service(lambda p: _not_found_again(p) == [], f"{KEYS}/ids-are-a-set", "not_found")
@around("finish_run")
async def duplicate_forgets_what_was_not_taken(release: Parts, conn: Connection, run: Run, outcome: Outcome) -> None:
    """The answer to a duplicate lists the items, but not the unknown and ineligible ids."""
    stored = {**json.loads(outcome.response), "not_found": [], "ineligible": []}
    await release.finish_run(conn, run, dataclasses.replace(outcome, response=json.dumps(stored)))


def _not_found_again(probe: Probe) -> Any:
    fields = {"dlq_ids": ["00000000-0000-4000-8000-0000000000aa"]}
    return _twice(probe, fields, fields)[1].json()["not_found"]


@service(
    lambda p: _runs_changed_after_their_transaction(p) == 1, "drill/recovery/replay-session-ended", ("answer", "stored")
)
def answer_stored_after_the_effect(settings: Settings) -> Parts:
    """The answer is stored after the effect has committed: a crash between them leaves a key without an answer."""
    return _storing_late(settings, lambda _outcome: True)


@service(
    lambda p: _runs_changed_after_their_transaction(p) == 1, f"{KEYS}/answer-stored-with-its-effect", "stored later"
)
def small_answers_are_stored_late(settings: Settings) -> Parts:
    """The answer to a small replay is stored after the effect has committed."""
    return _storing_late(settings, lambda outcome: outcome.target_count < 3)


def _storing_late(settings: Settings, chosen: Callable[[Outcome], bool]) -> Parts:
    release = build_parts(settings)
    owed: dict[Connection, tuple[str, str]] = {}

    async def without_answer(conn: Connection, started: Run, outcome: Outcome) -> None:
        if chosen(outcome):
            owed[conn] = (outcome.response, started.run_id)
            outcome = dataclasses.replace(outcome, response="null")
        await finish(conn, started, outcome)

    @asynccontextmanager
    async def twin(conn: Connection, *, keep: bool = True) -> AsyncIterator[None]:
        async with release.transaction(conn, keep=keep):
            yield
        if late := owed.pop(conn, None):
            await (await conn.execute(b"SELECT pg_sleep(0.05)")).fetchone()
            await conn.execute(b"UPDATE replay_runs SET response = %s::jsonb WHERE id = %s::uuid", late)

    return dataclasses.replace(release, finish_run=without_answer, transaction=twin)


def _runs_changed_after_their_transaction(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.replay(company, idempotency_key="witness-1")
        changed = "SELECT count(*) FROM replay_runs WHERE company_id = %s AND xmin::text <> txid::text"
        return int(probe.value(changed, company))


@service(lambda p: _key_taken_back(p) is False, f"{KEYS}/key-generated", "duplicate")
def generated_keys_are_not_taken_back(settings: Settings) -> Parts:
    """A generated key that is sent back is not recognised: the request is carried out again."""

    def change(request: ReplayRequest) -> ReplayRequest:
        is_ours = request.idempotency_key is not None and request.idempotency_key.startswith(("gen-", "sig-"))
        return dataclasses.replace(request, idempotency_key=None) if is_ours else request

    return requesting(settings, change)


@service(lambda p: _runs_without_a_key(p) == 1, f"{KEYS}/key-generated", "v1")
@instead_of("signature_check")
def v1_is_known_by_its_mac(header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float) -> Signature | None:
    """Equal v1 requests without a key count as duplicates (by MAC): the next batch is never replayed."""
    found = check_signature(header, message, secrets, now_s)
    return found and dataclasses.replace(found, version=2)


def _runs_without_a_key(probe: Probe) -> int:
    with probe.tenant() as company:
        return len({probe.replay(company).json()["replay_run_id"] for _ in range(2)})


def _key_taken_back(probe: Probe) -> Any:
    with probe.tenant() as company:
        first = probe.replay(company, max_items=1).json()
        return probe.replay(company, max_items=1, idempotency_key=first["idempotency_key"]).json()["duplicate"]


@service(lambda p: _dry_while_held(p) == 409, f"{KEYS}/in-progress", "dry run")
@around("preview_budget", of=remembering)
async def dry_runs_ask_for_the_lock(release: Parts, conn: Connection, company_id: str) -> int:
    """A dry run takes the lock of its key: it is refused as `in_progress` while that key runs."""
    request = REQUEST.get()
    if request is not None and request.idempotency_key is not None:
        held = {"key": request.idempotency_key, "company": company_id}
        cursor = await conn.execute(_LOCK, held)
        if not (await cursor.fetchone() or (False,))[0]:
            raise Refusal("in_progress", "A request with this idempotency key is running.")
    return await release.preview_budget(conn, company_id)


_LOCK = b"SELECT pg_try_advisory_xact_lock(hashtextextended(%(key)s, uuid_hash_extended(%(company)s::uuid, 1)))"


def _dry_while_held(probe: Probe) -> int:
    with probe.tenant() as company, psycopg.connect(probe.environ["DATABASE_URL"]) as other:
        other.execute(_LOCK, {"key": "k", "company": company})
        return probe.replay(company, idempotency_key="k", dry_run=True).status_code
