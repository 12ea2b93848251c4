"""The journal of a session: every POST of the drills with its answer, and the row that came of it.

Some checks look at all exchanges when the drills have ended, since the contract's promises hold for each. They find a
deployment that keeps a promise only in the request of the drill that tests it.
"""

import fcntl
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from drills.workbench.credentials import REPLAY
from drills.workbench.database import query
from drills.workbench.scene import LISTS
from drills.workbench.traces import traces_in
from gates.deployment.dialect.current import AbsentColumn, AbsentTable
from gates.deployment.ids import id_of
from gates.deployment.requests import Answer, Request, claims_of
from gates.deployment.sql.connection import Answering
from gates.text.foreign import json_object

EVENTS = "/events"
MOST_BYTES = 20_000
"""Of a line: what is longer is left to the check that sent it."""
MEMBERS = {
    REPLAY: (
        *("status", "replay_run_id", "idempotency_key", "company_id", "dry_run", "duplicate", "target_count"),
        *LISTS,
    ),
    EVENTS: ("event_id", "path", "duplicate"),
}
ROWS = {REPLAY: ("replay_run_id", ("runs_by_id", "items_by_run")), EVENTS: ("event_id", ("events_by_id",))}
"""Path -> the member of an answer that names a row, and the statements that read such rows. A later one may need what a
deployment lacks: then the members of the first are all.
"""

_TENANT = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|drill-[\w-]+")
"""What may be a tenant's id, and the name of a drill's."""


@dataclass
class Entry:
    """One exchange. check: whose it was; asked: the body; answer: the members of the answer that the contract names;
    shows: the first sign of the service's insides in it; strangers: what may be ids and names of tenants in a refusal,
    and was neither sent nor is the caller's; unlike: why a refusal with a code is no problem document, or a success is
    wrongly marked; row: what the database had of it when the check ended: None where nobody looked, empty where there
    was none.
    """

    check: str
    path: str
    label: str
    asked: dict[str, Any]
    status: int
    code: str
    request_ids: list[str]
    answer: dict[str, Any]
    shows: str = ""
    strangers: list[str] = field(default_factory=list)
    unlike: str = ""
    row: dict[str, Any] | None = field(default=None)

    @property
    def company(self) -> str:
        return str(self.asked.get("company_id", "")).lower()

    @property
    def is_first(self) -> bool:
        """Whether it was accepted, and is no repetition of an earlier one."""
        return self.status < 300 and not self.answer.get("duplicate")

    @property
    def is_dry(self) -> bool:
        return self.asked.get("dry_run") is True

    def __str__(self) -> str:
        asked = {name: value for name, value in self.asked.items() if name not in {"company_id", "payload"}}
        said = f"{self.status} {self.code}".rstrip()
        ids = " ".join(self.request_ids)
        return f"{self.label or self.path} {asked} of {self.check}, answered {said} (request id {ids})"


class Journal:
    """Entries in an unnamed temporary file that forked processes share."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  -- it lives as long as the session
        descriptor = self._file.fileno()
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
        self._noted: list[Entry] = []
        self._read: list[Entry] = []
        self._read_bytes = 0
        self.check = ""
        """Whose exchanges are noted; empty for a check that changes by hand what the service wrote."""

    def note(self, request: Request, answer: Answer) -> None:
        """Note an exchange of the current check."""
        if self.check and request.method == "POST" and request.path in MEMBERS:
            said = answer.json()
            members = {name: said[name] for name in MEMBERS[request.path] if name in said}
            asked = json_object(request.body)
            what = (self.check, request.path, request.label, asked, answer.status, answer.code)
            shows = "".join(traces_in(answer.body)[:1])
            refused = answer.status >= 400
            strangers = _strangers(request, answer) if refused else []
            unlike = (answer.unlike_a_problem() if answer.code else "") if refused else _wrongly_marked(said, answer)
            self._noted.append(Entry(*what, answer.request_ids, members, shows, strangers, unlike))

    def look(self, db: Answering, companies: Sequence[str]) -> None:
        """Read what these tenants have of what was accepted, before they are removed. Raise psycopg.Error."""
        for path, (member, statements) in ROWS.items():
            own = [e for e in self._noted if e.path == path and e.is_first and e.company in companies]
            named = {str(e.answer[member]): e for e in own if e.answer.get(member)}
            ids = f"{{{','.join(json.dumps(name) for name in named)}}}"  # whatever the column's type
            with suppress(AbsentColumn, AbsentTable):
                for statement in statements if named else ():
                    rows = {str(row["id"]): row for row in db.execute(query(statement).encode(), (ids,)).fetchall()}
                    for name, entry in named.items():
                        entry.row = (entry.row or {}) | rows.get(name, {})

    def close(self) -> None:
        """Write down the exchanges of the check that has ended."""
        for entry in self._noted:
            line = json.dumps(vars(entry), default=str).encode() + b"\n"
            if len(line) <= MOST_BYTES:
                os.write(self._file.fileno(), line)
        self._noted = []

    def forget(self) -> None:
        """Begin anew, as for another deployment."""
        self._file.truncate(0)
        self._noted, self._read, self._read_bytes = [], [], 0

    def end(self) -> None:
        """Close the file."""
        self._file.close()

    def entries(self, path: str) -> list[Entry]:
        """The entries of a path that have a request id of their own, of every check and process."""
        found = self._all()
        shared = _shared(found)
        return [e for e in found if e.path == path and e.request_ids and shared.isdisjoint(e.request_ids)]

    def without_ids(self) -> list[Entry]:
        """The entries that the service itself answered, as their code or success says, without a request id."""
        return [e for e in self._all() if not e.request_ids and (e.code or e.status < 300)]

    def of_shared_ids(self) -> list[Entry]:
        """The entries whose request id another one has, too. A duplicate may have that of the first answer."""
        found = [e for e in self._all() if not e.answer.get("duplicate")]
        shared = _shared(found)
        return [e for e in found if not shared.isdisjoint(e.request_ids)]

    def _all(self) -> list[Entry]:
        written = os.fstat(self._file.fileno()).st_size
        lines = os.pread(self._file.fileno(), written - self._read_bytes, self._read_bytes).splitlines()
        self._read += [Entry(**json.loads(line)) for line in lines]
        self._read_bytes = written
        return [*self._read, *self._noted]


def _shared(entries: Sequence[Entry]) -> set[str]:
    """The request ids that several entries have."""
    return {one for one, times in Counter(one for e in entries for one in {*e.request_ids}).items() if times > 1}


def _wrongly_marked(said: dict[str, Any], answer: Answer) -> str:
    """Whether the header of a replay's success says otherwise than its body that it is a duplicate."""
    marked = (answer.header("idempotent-replayed") or "").lower()
    is_fine = "replay_run_id" not in said or (marked == "true") is (said.get("duplicate") is True)
    return "" if is_fine else f"Idempotent-Replayed is {marked!r}, duplicate {said.get('duplicate')!r}"


def _strangers(request: Request, answer: Answer) -> list[str]:
    """What an answer names as tenants are named, and its caller did not send."""
    claims = (json.dumps(claims_of(value)) for name, value in request.headers if name.lower() == "authorization")
    sent = [request.body.decode(errors="replace"), *(value for _, value in request.headers), *claims]
    known = {*_TENANT.findall(" ".join(sent).lower())}
    found = {*_TENANT.findall(answer.body.decode(errors="replace").lower())} - known
    return sorted(one for one in found if not any(one.endswith(own[:8]) or id_of(one) == own for own in known))


JOURNAL = pytest.StashKey[Journal]()
"""Where a session keeps its own."""
