"""Step 3 of the checks: from JSON values to validated requests. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from replay_service.problems import FieldError, Invalid, Refusal, invalid
from replay_service.strict_json import JsonRefused, parse

MAX_BATCH = 50
DEFAULT_BATCH = 25
MAX_TEXT = 200

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PRINTABLE = re.compile(r"[\x20-\x7e]{1,200}")

REPLAY_FIELDS = frozenset({"company_id", "max", "idempotency_key", "dry_run", "force", "dlq_ids", "error_type"})
EVENT_FIELDS = frozenset({"company_id", "event_type", "aggregate_key", "payload", "event_id"})


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """A validated POST /dlq-replay after defaults. UUIDs are in lower case; `dlq_ids` is sorted, None where absent."""

    company_id: str
    max_items: int
    idempotency_key: str | None
    dry_run: bool
    force: bool
    dlq_ids: tuple[str, ...] | None
    error_type: str | None

    @property
    def payload_hash(self) -> str:
        """Hex SHA-256 of the request without its key: equal for equal requests."""
        parts = [self.company_id, self.max_items, self.dry_run, self.force, self.dlq_ids, self.error_type]
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


@dataclass(frozen=True, slots=True)
class EventRequest:
    """A validated POST /events. `body` is the JSON text it came in: PostgreSQL takes the payload out of it exactly."""

    company_id: str
    event_type: str
    aggregate_key: str | None
    event_id: str | None
    payload: dict[str, Any]
    body: str


def as_uuid(value: object) -> str | None:
    """The UUID in lower case if the value is its 36-character form."""
    if isinstance(value, str) and _UUID.fullmatch(value):
        return value.lower()
    return None


def read_replay(raw: bytes) -> ReplayRequest:
    """Validate the body of POST /dlq-replay. Raise Refusal `invalid_request` or `batch_too_large`."""
    found = _Reader(_object_of(raw), REPLAY_FIELDS)
    company_id = found.uuid("company_id")
    dlq_ids = _dlq_ids(found)
    max_items = found.integer("max", default=DEFAULT_BATCH if dlq_ids is None else len(dlq_ids))
    key = found.text("idempotency_key", printable=True)
    dry_run = found.boolean("dry_run")
    force = found.boolean("force")
    error_type = found.text("error_type")
    found.finish()
    if max_items > MAX_BATCH:
        raise _too_large(f"max is above {MAX_BATCH}.")
    if dlq_ids is not None and len(found.values["dlq_ids"]) > MAX_BATCH:
        raise _too_large(f"dlq_ids has more than {MAX_BATCH} entries.")
    return ReplayRequest(company_id, max_items, key, dry_run, force, dlq_ids, error_type)


def read_event(raw: bytes) -> EventRequest:
    """Validate the body of POST /events. Raise Refusal `invalid_request`."""
    found = _Reader(_object_of(raw), EVENT_FIELDS)
    company_id = found.uuid("company_id")
    event_type = found.text("event_type", required=True)
    aggregate_key = found.text("aggregate_key")
    payload = found.mapping("payload")
    event_id = found.optional_uuid("event_id")
    found.finish()
    return EventRequest(company_id, event_type or "", aggregate_key, event_id, payload, raw.decode())


def _object_of(raw: bytes) -> dict[str, Any]:
    try:
        value = parse(raw)
    except JsonRefused as refused:
        raise invalid("", f"The body {refused}.") from None
    if not isinstance(value, dict):
        raise invalid("", "The body must be a JSON object.")
    return value


def _too_large(detail: str) -> Refusal:
    return Refusal("batch_too_large", f"{detail} At most {MAX_BATCH} items are replayed at once.")


def _dlq_ids(found: _Reader) -> tuple[str, ...] | None:
    if "dlq_ids" not in found.values:
        return None
    value = found.values["dlq_ids"]
    if not isinstance(value, list) or not value:
        found.refuse("dlq_ids", f"must be a list of 1 to {MAX_BATCH} UUIDs")
        return ()
    ids = [as_uuid(item) for item in value]
    if None in ids:
        found.refuse("dlq_ids", "must hold UUID strings of 36 characters only")
        return ()
    return tuple(sorted({item for item in ids if item}))


class _Reader:
    """Takes typed fields out of a JSON object and collects what is wrong with them."""

    def __init__(self, values: dict[str, Any], known: frozenset[str]) -> None:
        self.values = values
        self.errors: list[FieldError] = []
        for name in values:
            if name not in known:
                self.refuse(name[:MAX_TEXT], "is not a known field")

    def refuse(self, name: str, message: str) -> None:
        self.errors.append(FieldError(name, message))

    def finish(self) -> None:
        if self.errors:
            raise Invalid(tuple(self.errors[:50])).refusal()

    def uuid(self, name: str) -> str:
        return self.optional_uuid(name, required=True) or ""

    def optional_uuid(self, name: str, *, required: bool = False) -> str | None:
        if name not in self.values and not required:
            return None
        value = as_uuid(self.values.get(name))
        if value is None:
            self.refuse(name, "must be a UUID string of 36 characters")
        return value

    def integer(self, name: str, *, default: int) -> int:
        value = self.values.get(name, default)
        if type(value) is not int or (value < 1 and name in self.values):
            self.refuse(name, f"must be an integer from 1 to {MAX_BATCH}")
            return default
        return value

    def boolean(self, name: str) -> bool:
        value = self.values.get(name, False)
        if type(value) is not bool:
            self.refuse(name, "must be true or false")
            return False
        return value

    def text(self, name: str, *, required: bool = False, printable: bool = False) -> str | None:
        if name not in self.values and not required:
            return None
        value = self.values.get(name)
        if not isinstance(value, str) or not 1 <= len(value) <= MAX_TEXT:
            self.refuse(name, f"must be a string of 1 to {MAX_TEXT} characters")
            return None
        if printable and not _PRINTABLE.fullmatch(value):
            self.refuse(name, "must be printable ASCII")
            return None
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        value = self.values.get(name)
        if not isinstance(value, dict):
            self.refuse(name, "must be a JSON object")
            return {}
        return value
