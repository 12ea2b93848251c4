"""The last verdict of a release over HTTP, for rollout controllers. Read-only; what is not known is a hold.

Argo Rollouts takes an answer that is not 2xx for an error, and errors abort: whatever can be answered is 200 and says
hold. Flagger reads the status alone: yes is 200, no is 403, and its rollback hook is answered yes for a rollback alone.
"""

import argparse
import contextlib
import datetime as dt
import hmac
import io
import ipaddress
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gates import config
from gates.errors import CannotWork, UsageError
from gates.inputs import options as shared
from gates.inputs import values
from gates.inputs.values import option
from gates.past_decisions import FILE, PastDecision, histories, last_of, read
from gates.reports.console import Console
from gates.text import characters, foreign
from gates.verdict import Decision

VERDICT, FLAGGER = "/v1/verdict", "/v1/flagger/"
CONFIRMS = ("confirm-rollout", "pre-rollout", "rollout", "confirm-traffic-increase", "confirm-promotion")
NOTED = ("post-rollout", "event")
MOST_BODY = 64 * 1024
MOST_REASON = 1000
MOST_AT_ONCE = 32
TIMEOUT_S = 5.0
"""The limit for a request, and again for its answer."""
ROOM_WITHIN_S = 1.0
GRAVITY = (Decision.ROLLBACK, Decision.HOLD, Decision.PROMOTE)
TOKEN = "GATE_SERVE_TOKEN"  # noqa: S105  -- the name of the variable
LOOPBACK, LEAST_TOKEN = ("127.0.0.1", "::1", "localhost"), 16
AHEAD = dt.timedelta(minutes=5)
"""So far a clock may be ahead of ours."""


@dataclass(frozen=True, slots=True)
class DeskAnswer:
    """Status, content type and text of an answer."""

    status: int
    text: str
    kind: str = "application/json"


@dataclass(frozen=True, slots=True)
class Desk:
    """Answers requests from the state folder. token: empty if none is required."""

    state: Path
    max_age: dt.timedelta
    now: Callable[[], dt.datetime]
    token: str = ""
    _read: dict[Path, tuple[object, list[PastDecision]]] = field(default_factory=dict)
    """Cache of each history, by its bytes: a long one takes a second to read, and many clients ask at once."""
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def verdict_of(self, release: str, kind: str = "") -> dict[str, Any]:
        """The last verdict of a release on targets of a kind; of several targets the worst. Unknown, unfinished, old or
        unreadable: hold. kind: empty for the only one there is; if there are several, nothing is promoted.
        """
        if not release:
            return _hold(release, "no release was named; ask with ?release=NAME", kind)
        try:
            pasts = [_with_kinds(past) for past in self._pasts()]
        except OSError as error:
            return _hold(release, f"the state folder cannot be read ({type(error).__name__})", kind)
        asked = [[one for one in past if not kind or one.target in {kind, ""}] for past in pasts]
        found = [(one, past) for past in asked if (one := last_of(release, past)) is not None]
        if not found:
            return _hold(release, "the gate has not judged this release" + (f" on {kind}" if kind else ""), kind)
        anywhere = [one for past in pasts for one in past if _of_any_kind(one)]
        known = [_undone(one, past, anywhere) for one, past in found if not _of_any_kind(one)]
        known = known or [one for one, _ in found]
        answers = [self._told(one, release, kind) for one in known]
        told = min(answers, key=lambda t: GRAVITY.index(Decision(t["decision"])))
        kinds = sorted({one.target for past in pasts for one in past} - {""})
        if told["decision"] != Decision.PROMOTE.value or (told["target"] == kind if kind else len(kinds) < 2):
            return told
        doubt = f"that a {kind} target was judged is not known: run the gate again"
        several = f"targets of several kinds are remembered ({', '.join(kinds)}): ask with &target=KIND"
        return {**told, "decision": "hold", "reason": doubt if kind else several}

    def _told(self, one: PastDecision, release: str, kind: str) -> dict[str, Any]:
        at, now = one.finished, self.now()
        if at is None:
            return _hold(release, one.reason, one.target)
        if kind and _of_any_kind(one):
            return _hold(release, f"a target whose kind nobody named was rolled back: {one.reason}", kind)
        if one.decision is Decision.ROLLBACK and one.release != release:
            what = f"release {one.release}" if one.release else "a release that nobody named"
            return _hold(release, f"{what} was rolled back ({one.finished_at}: {one.reason}): run the gate again", kind)
        told = {"decision": one.decision, "release": release, "target": one.target, "finished_at": one.finished_at}
        if one.decision is Decision.PROMOTE and one.dry_run:
            return {**told, "decision": "hold", "reason": "that was a dry run, which changed nothing: run the gate"}
        if one.decision is Decision.PROMOTE and not -AHEAD <= now - at <= self.max_age:
            old = f"{(now - at).total_seconds() / 60:.0f} minutes old"
            return {**told, "decision": "hold", "reason": f"the promote is {old}: run the gate again"}
        return {**told, "reason": one.reason[:MOST_REASON]}

    def _pasts(self) -> list[list[PastDecision]]:
        with self._reading:
            return [self._past(folder / FILE) for folder in histories(self.state)]

    def _past(self, path: Path) -> list[PastDecision]:
        """The history as it is now. A writer appends, or replaces the file."""
        found = path.stat()
        of = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if path not in self._read or self._read[path][0] != of:
            self._read[path] = of, read(path.parent)
        return self._read[path][1]

    def get(self, target: str, credential: str) -> DeskAnswer:
        try:
            parts = urlsplit(target)
            asked = parse_qs(parts.query, max_num_fields=20)
        except ValueError:
            return _refused(400, "an address with at most 20 fields is read")
        if parts.path == "/healthz":
            return DeskAnswer(200, '{"status": "ok"}\n')
        if not self._admits(credential):
            return _refused(401, "a bearer token is needed: GATE_SERVE_TOKEN of this server")
        if parts.path == "/metrics":
            return DeskAnswer(200, self.metrics(), "text/plain; version=0.0.4; charset=utf-8")
        if parts.path == VERDICT:
            release, kinds = asked.get("release", [""]), foreign.text(",".join(asked.get("target", [])), 200)
            told = self.verdict_of(foreign.text(release[0], 200) if len(release) == 1 else "", kinds)
            return DeskAnswer(200, _dumped(told))
        return _refused(404, f"there is {VERDICT}, {FLAGGER}TYPE, /metrics and /healthz")

    def post(self, target: str, body: bytes, credential: str) -> DeskAnswer:
        """Flagger's webhooks. The metadata has `release` (default: the checksum) and `target`, its kind."""
        path = target.partition("?")[0]
        hook = path.removeprefix(FLAGGER)
        if not path.startswith(FLAGGER) or hook not in {*CONFIRMS, *NOTED, "rollback"}:
            return _refused(404, f"there is POST {FLAGGER}TYPE, of {', '.join((*CONFIRMS, *NOTED, 'rollback'))}")
        asked = foreign.json_object(body)
        given: Any = asked.get("metadata")
        metadata = given if isinstance(given, dict) else {}
        if not (self._admits(credential) or self._admits(f"Bearer {metadata.get('token', '')}")):
            return _refused(403, "a token is needed: metadata.token")
        if hook in NOTED:
            return DeskAnswer(200, "noted\n", "text/plain; charset=utf-8")
        release = metadata.get("release") or asked.get("checksum") or ""
        if not isinstance(release, str):
            return _refused(403, "the release must be a text: put it in quotes, as a number 1.10 is 1.1")
        told = self.verdict_of(foreign.text(release, 200), foreign.text(metadata.get("target") or "", 200))
        wanted = Decision.ROLLBACK if hook == "rollback" else Decision.PROMOTE
        status = 200 if told["decision"] == wanted.value else 403
        said = f"{told['decision']}: {characters.line(told['reason'])}\n"
        return DeskAnswer(status, said, "text/plain; charset=utf-8")

    def _admits(self, credential: str) -> bool:
        return not self.token or hmac.compare_digest(
            credential.encode("utf-8", "replace"), f"Bearer {self.token}".encode()
        )

    def metrics(self) -> str:
        """The last finished decision of any target in Prometheus' text format; none without one. The lines of a target
        are in order, whatever the clocks said, and a time to come is none by which targets are compared.
        """
        try:
            pasts = self._pasts()
        except OSError:
            pasts = []
        runs = [next(((at, one) for one in reversed(past) if (at := one.finished)), None) for past in pasts]
        by_time = sorted(filter(None, runs), key=lambda run: (run[0] <= self.now() + AHEAD, run[0]))
        if not by_time:
            return ""
        at, last = by_time[-1]
        lines = ["# HELP gate_decision The last decision of the gate.", "# TYPE gate_decision gauge"]
        lines += [f'gate_decision{{decision="{d.value}"}} {int(d is last.decision)}' for d in Decision]
        name = "gate_last_run_timestamp_seconds"
        lines += [f"# HELP {name} When it was decided.", f"# TYPE {name} gauge", f"{name} {at.timestamp():.3f}"]
        lines += ["# HELP gate_checks Checks of that run by outcome.", "# TYPE gate_checks gauge"]
        counts = {"pass": last.passed, "fail": last.failed, "unknown": last.unknown}
        lines += [f'gate_checks{{outcome="{name}"}} {number}' for name, number in counts.items()]
        return "\n".join(lines) + "\n"


def _of_any_kind(one: PastDecision) -> bool:
    """Whether it is a rollback without the kind of its target: made by hand, with only the database."""
    return one.decision is Decision.ROLLBACK and not one.target


def _undone(one: PastDecision, past: Sequence[PastDecision], anywhere: Sequence[PastDecision]) -> PastDecision:
    """A decision, or instead of a promote a later rollback that may be of its target: the flag is off for every
    release. The lines of one target are in order, whatever the clocks said; those of others are ordered by time.
    """
    at = one.finished
    if one.decision is not Decision.PROMOTE or at is None:
        return one
    after = [r for r in anywhere if r.finished is not None and r.finished >= at] + [*past[past.index(one) + 1 :]]
    return next((r for r in reversed(after) if r.decision is Decision.ROLLBACK and not r.dry_run), one)


def _with_kinds(past: Sequence[PastDecision]) -> list[PastDecision]:
    """The lines of one target; those without a kind get that of the last one that has it."""
    kind = next((one.target for one in reversed(past) if one.target), "")
    return [one if one.target else replace(one, target=kind) for one in past]


def _hold(release: str, reason: str, kind: str) -> dict[str, Any]:
    told = {"decision": Decision.HOLD.value, "release": release, "target": kind, "finished_at": ""}
    return {**told, "reason": reason[:MOST_REASON]}


def _dumped(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=True) + "\n"


def _refused(status: int, said: str) -> DeskAnswer:
    return DeskAnswer(status, _dumped({"error": said}))


def _is_loopback(host: str) -> bool:
    """Whether a Host header is a loopback name or address, with or without a port, and nothing else."""
    found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9.]+))(?::[0-9]{1,5})?", host, re.IGNORECASE)
    name = "".join(found.groups("")).lower() if found else ""
    with contextlib.suppress(ValueError):
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    return False


class VerdictServer(ThreadingHTTPServer):
    """A thread for each request; a few at once, each with a time limit for reading and answering. At the limit, the
    request that has been read for longest is dropped: its client is dripping.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, place: tuple[str, int], desk: Desk, *, at_once: int = MOST_AT_ONCE, within_s: float = TIMEOUT_S
    ) -> None:
        self.desk, self.within_s = desk, within_s
        self._free = threading.BoundedSemaphore(at_once)
        self._unread: dict[socket.socket, None] = {}
        """Connections whose request is not read yet, the oldest first."""
        self._lock = threading.Lock()
        self.address_family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        super().__init__(place, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False) or (self._make_room() and self._free.acquire(timeout=ROOM_WITHIN_S)):
            with self._lock:
                self._unread[request] = None
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def _make_room(self) -> bool:
        """Drop the oldest unread connection; returns whether there was one."""
        with self._lock:
            slowest = next(iter(self._unread), None)
            if slowest is not None:
                del self._unread[slowest]
                with contextlib.suppress(OSError):
                    slowest.shutdown(socket.SHUT_RDWR)
        return slowest is not None

    def was_read(self, request: socket.socket) -> None:
        """Count the connection as read: it no longer waits for its client."""
        with self._lock:
            self._unread.pop(request, None)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.was_read(request)
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that go away."""


class _Until(io.RawIOBase):
    """Reads from a socket until one deadline for everything: no received byte extends it."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection, self._deadline = connection, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    """One request per connection; nothing that a client sends is printed or kept."""

    server: VerdictServer
    server_version, sys_version = "replaygate", ""

    def setup(self) -> None:
        """Give sending a time limit of its own: a socket's timeout covers everything sent."""
        super().setup()
        self.rfile = io.BufferedReader(_Until(self.connection, time.monotonic() + self.server.within_s))

    def parse_request(self) -> bool:
        """Whether to read the request on. Without a token only this machine is served: another Host may be rebound."""
        if not super().parse_request():
            return False
        if self.server.desk.token or _is_loopback(self.headers.get("Host", "localhost")):
            return True
        self._send(_refused(421, "without GATE_SERVE_TOKEN only localhost and addresses of loopback are answered for"))
        return False

    def do_GET(self) -> None:
        self._send(self.server.desk.get(self.path, self.headers.get("Authorization", "")))

    do_HEAD = do_GET  # noqa: N815  -- its name in the standard library

    def do_POST(self) -> None:
        length = foreign.count(self.headers.get("Content-Length", ""))
        if length > MOST_BODY or self.headers.get("Transfer-Encoding"):
            self._send(_refused(413, f"a body of at most {MOST_BODY} bytes with its Content-Length is read"))
            return
        body = self.rfile.read(length)
        if len(body) < length:
            self._send(_refused(400, "a whole body is read"))
            return
        self._send(self.server.desk.post(self.path, body, self.headers.get("Authorization", "")))

    def _send(self, answer: DeskAnswer) -> None:
        body = answer.text.encode("utf-8", "backslashreplace")
        self.server.was_read(self.connection)
        self.connection.settimeout(self.server.within_s)
        self.send_response(answer.status)
        if answer.status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        for name, value in (
            ("Content-Type", answer.kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Connection", "close"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Refuse what the standard library cannot read as we refuse, without the words of the client."""
        self.request_version = self.protocol_version  # a line that cannot be read leaves 0.9, which has no status
        self._send(_refused(code, ": ".join(filter(None, self.responses[code]))))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  -- its name in the standard library
        """Log nothing: a request may hold anything."""


def add_arguments(made: argparse.ArgumentParser, _name: str) -> None:
    shared.policy(made)
    shared.state(made)
    made.add_argument("--host", default="127.0.0.1", help="the address to listen on; beyond loopback a token is needed")
    said = "the port (default: 8600; 0: any that is free)"
    made.add_argument("--port", type=option(values.whole(0, 65_535)), default=8600, help=said)


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """Serve until a signal. Raise UsageError for an address beyond loopback without a token."""
    file = config.load_policy(options.policy, dt.datetime.now(dt.UTC).date(), options.state)
    token = console.environ.get(TOKEN, "")
    least = 0 if options.host in LOOPBACK else LEAST_TOKEN
    if not re.fullmatch(rf"[ -~]{{{least},}}", token):
        said = f"--host {options.host} with {len(token)} characters in {TOKEN}; allowed: {least} or more, all of ASCII"
        raise UsageError(f"{said}. Correct {TOKEN}")
    console.hide = {**console.hide, **({token: TOKEN} if token else {})}
    age = dt.timedelta(minutes=file.max_age_minutes)
    desk = Desk(file.settings.state, age, lambda: dt.datetime.now(dt.UTC), token)
    try:
        server = VerdictServer((options.host, options.port), desk)
    except (OSError, TypeError) as error:  # TypeError: a name that cannot be encoded
        raise CannotWork(f"{options.host}:{options.port}: {error}; allowed: a free address. Correct --port") from error
    with server:
        host = f"[{options.host}]" if ":" in options.host else options.host
        console.result(f"http://{host}:{server.server_address[1]}")
        server.serve_forever()
    return 0
