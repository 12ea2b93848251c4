"""Deployments that lie on purpose: only to the gate, after a while, about who did what. The real one stands behind."""

import base64
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import quote, urlsplit

from gates.proof.degenerate import completed, problem
from gates.proof.hostile.contents import header
from gates.proof.workbench.servers import HANG, Asked, Behaviour, Reply, forward, raw
from gates.text.foreign import json_object

Make = Callable[[str, str], Behaviour]
GONE = raw(reset=True)
BROKEN = problem(500, "internal")
HEALTH = ("/healthz", "/readyz")


def is_call(asked: Asked) -> bool:
    """Whether it is a call of the functions, not of a page about the deployment."""
    return "/dlq-replay" in asked.path or "/events" in asked.path


def sometimes(bad: Callable[[Asked], bool], wrong: Reply) -> Make:
    """The real deployment, except for the chosen requests."""
    return lambda real, _release: lambda asked: wrong if bad(asked) else forward(real, asked)


def counted(choose: Callable[[int], bool], wrong: Reply, *, calls_only: bool = False) -> Make:
    """The real deployment, except for requests chosen by number."""

    def make(real: str, _release: str) -> Behaviour:
        turn = itertools.count()

        def answer(asked: Asked) -> Reply:
            chosen = (not calls_only or is_call(asked)) and choose(next(turn))
            return wrong if chosen else forward(real, asked)

        return answer

    return make


def after(seconds: float, wrong: Reply) -> Make:
    """Healthy for so long from the first request on."""

    def make(real: str, _release: str) -> Behaviour:
        began: list[float] = []

        def answer(asked: Asked) -> Reply:
            began.append(time.monotonic()) if not began else None
            return wrong if time.monotonic() - began[0] > seconds else forward(real, asked)

        return answer

    return make


def late(seconds: float, which: Callable[[Asked], bool] = is_call) -> Make:
    """Right, but later by so much."""

    def change(asked: Asked, reply: Reply) -> Reply:
        if which(asked):
            time.sleep(seconds)
        return reply

    return rewritten(change)


def rewritten(change: Callable[[Asked, Reply], Reply]) -> Make:
    """Every answer of the real deployment, changed."""
    return lambda real, _release: lambda asked: change(asked, forward(real, asked))


def by_instance(*releases: str) -> Make:
    """Instances behind one address that name different releases, in turn; an empty one means the real release."""

    def make(real: str, _release: str) -> Behaviour:
        turn = itertools.cycle(releases)

        def answer(asked: Asked) -> Reply:
            reply = forward(real, asked)
            if urlsplit(asked.path).path.endswith("/version") and (said := next(turn)):
                return replace(reply, body=json.dumps({**json.loads(reply.body), "release": said}).encode())
            return reply

        return answer

    return make


def _previous_answer(real: str, _release: str) -> Behaviour:
    """Each call gets the answer of the call before it."""
    last: list[Reply] = []

    def answer(asked: Asked) -> Reply:
        reply = forward(real, asked)
        if not is_call(asked):
            return reply
        last.append(reply)
        return last[-2] if len(last) > 1 else reply

    return answer


def _two_for_one(_asked: Asked, reply: Reply) -> Reply:
    """Two responses per request on one connection: a client that reuses it takes the second for the next answer."""
    two = reply, replace(reply, status=200, body=b'{"status":"completed"}')
    return raw(b"".join(map(_bytes_of, two)), keep=True)


def _bytes_of(reply: Reply) -> bytes:
    headers = (f"{k}: {v}" for k, v in (*reply.headers, ("Content-Length", len(reply.body))))
    return "\r\n".join((f"HTTP/1.1 {reply.status} X", *headers)).encode("latin-1", "replace") + b"\r\n\r\n" + reply.body


def _accepts_all(asked: Asked, reply: Reply) -> Reply:
    """A refusal is reported as success."""
    if not is_call(asked) or reply.status < 400:
        return reply
    done = json.dumps(completed(json_object(asked.body)))
    return Reply(200, (("Content-Type", "application/json"), ("X-Request-Id", "1")), done.encode())


def _swallows(real: str, _release: str) -> Behaviour:
    """Every third replay is answered as done, and never reaches the deployment."""
    turn = itertools.count()

    def answer(asked: Asked) -> Reply:
        if asked.method == "POST" and asked.path.endswith("/dlq-replay") and next(turn) % 3 == 2:
            return _accepts_all(asked, problem(400, "swallowed"))
        return forward(real, asked)

    return answer


def _twice(real: str, _release: str) -> Behaviour:
    """Each call is made twice, as by a proxy that retries."""

    def answer(asked: Asked) -> Reply:
        reply = forward(real, asked)
        return forward(real, asked) if asked.method == "POST" and is_call(asked) else reply

    return answer


def _remembers(real: str, _release: str) -> Behaviour:
    """A cache before the deployment: an equal request is answered from memory, whoever asks."""
    kept: dict[tuple[str, str, bytes], Reply] = {}
    guard = threading.Lock()

    def answer(asked: Asked) -> Reply:
        key = (asked.method, asked.path, asked.body)
        with guard:
            if key in kept:
                return kept[key]
        reply = forward(real, asked)
        with guard:
            return kept.setdefault(key, reply)

    return answer


def _without_header(name: str) -> Make:
    def kept(asked: Asked) -> Asked:
        return replace(asked, headers=tuple(h for h in asked.headers if h[0].lower() != name))

    return lambda real, _release: lambda asked: forward(real, kept(asked))


def _flips(real: str, _release: str) -> Behaviour:
    """One bit of one byte of every tenth answer is flipped."""
    chance = random.Random(1)  # noqa: S311  -- reproducible

    def answer(asked: Asked) -> Reply:
        reply = forward(real, asked)
        if not reply.body or chance.random() > 0.1:
            return reply
        spoilt = bytearray(reply.body)
        spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
        return replace(reply, body=bytes(spoilt))

    return answer


def _user_agent(asked: Asked) -> bool:
    return "python" in asked.header("User-Agent").lower() or not asked.header("User-Agent")


TEST_COMPANY = b"00000000-0000-4000-8000-000000000004"


def _dry(_asked: Asked, reply: Reply) -> Reply:
    """Every replay is answered as a dry run."""
    return replace(
        reply,
        body=reply.body.replace(b'"dry_run":false', b'"dry_run":true').replace(b'"dry_run": false', b'"dry_run": true'),
    )


def _no_request_id(_asked: Asked, reply: Reply) -> Reply:
    return replace(reply, headers=tuple(h for h in reply.headers if h[0].lower() != "x-request-id"))


def _status_swapped(asked: Asked, reply: Reply) -> Reply:
    """Refusals have status 200, with their problem in the body."""
    return replace(reply, status=200) if is_call(asked) else reply


LIARS: Mapping[str, tuple[str, Make]] = {
    "healthy-20": ("right for the first 20 requests, then 500", counted(lambda n: n >= 20, BROKEN)),
    "healthy-100": ("right for the first 100 requests, then resets", counted(lambda n: n >= 100, GONE)),
    "healthy-300": ("right for the first 300 requests, then silent", counted(lambda n: n >= 300, HANG)),
    "dies-after-2-s": ("right for two seconds, then gone", after(2.0, GONE)),
    "dies-after-6-s": ("right for six seconds, then gone", after(6.0, GONE)),
    "one-in-seven": ("every seventh call fails", counted(lambda n: n % 7 == 6, BROKEN, calls_only=True)),
    "one-in-twenty-reset": ("every twentieth call is reset", counted(lambda n: n % 20 == 19, GONE, calls_only=True)),
    "one-in-thirty-silent": (
        "every thirtieth call is never answered",
        counted(lambda n: n % 30 == 29, HANG, calls_only=True),
    ),
    "only-health": ("healthy pages, every call reset", sometimes(is_call, GONE)),
    "health-fails": (
        "health pages fail, calls are right",
        sometimes(lambda a: urlsplit(a.path).path.endswith(HEALTH), BROKEN),
    ),
    "late-3-s": ("every call right, three seconds late", late(3.0)),
    "late-12-s": ("every call right, twelve seconds late", late(12.0)),
    "late-pages": ("health pages right, twelve seconds late", late(12.0, lambda a: not is_call(a))),
    "good-to-test-company": (
        "right to the test company alone",
        sometimes(lambda a: is_call(a) and a.method == "POST" and TEST_COMPANY not in a.body, BROKEN),
    ),
    "good-to-clients-of-python": (
        "right to callers that call themselves Python, or nothing",
        sometimes(lambda a: is_call(a) and not _user_agent(a), BROKEN),
    ),
    "bad-to-clients-of-python": (
        "wrong to callers that call themselves Python, or nothing",
        sometimes(lambda a: is_call(a) and _user_agent(a), BROKEN),
    ),
    "version-one-of-two": ("one of two instances is of another release", by_instance("", "the-one-before")),
    "version-one-of-five": (
        "one of five instances is of another release",
        by_instance("", "", "", "", "the-one-before"),
    ),
    "version-all-other": ("every instance is of another release", by_instance("the-one-before")),
    "answers-of-the-previous": ("each call gets the answer of the one before", _previous_answer),
    "two-for-one": ("two responses for each request on one connection", rewritten(_two_for_one)),
    "refusals-are-done": ("what was refused is called done", rewritten(_accepts_all)),
    "refusals-are-200": ("refusals come with status 200", rewritten(_status_swapped)),
    "swallows": ("every third replay is called done, and is not", _swallows),
    "makes-twice": ("every call is made twice", _twice),
    "cache": ("a cache answers the same request from memory", _remembers),
    "drops-signatures": ("a proxy drops the signature", _without_header("x-transbot-signature")),
    "drops-tokens": ("a proxy drops the token", _without_header("authorization")),
    "always-dry": ("says of every replay that it was dry", rewritten(_dry)),
    "bit-flips": ("every tenth answer has a bit flipped", _flips),
    "says-gzip": (
        "says gzip of answers that are none",
        rewritten(lambda _asked, reply: header("Content-Encoding", "gzip")(reply)),
    ),
    "no-request-ids": ("answers without a request id", rewritten(_no_request_id)),
}


def _without(method: str, path: str) -> Make:
    not_found = Reply(404, (("Content-Type", "text/plain"),), b"Not Found")
    return sometimes(lambda asked: path in urlsplit(asked.path).path and asked.method == method, not_found)


MISSING: Mapping[str, tuple[str, Make]] = {
    f"without-{name}": (f"a build without {method} {path}", _without(method, path))
    for name, method, path in (
        ("healthz", "GET", "/healthz"),
        ("readyz", "GET", "/readyz"),
        ("version", "GET", "/version"),
        ("metrics", "GET", "/metrics"),
        ("openapi", "GET", "/openapi.json"),
        ("replay", "POST", "/dlq-replay"),
        ("run-status", "GET", "/dlq-replay/"),
        ("events", "POST", "/events"),
        ("event-status", "GET", "/events/"),
    )
}
"""Half builds: one endpoint missing in each."""


def echo(secrets: Callable[[Asked], list[str]]) -> Make:
    """Answers that echo the request, in every spelling: in a header and in the problem's detail."""

    def change(asked: Asked, reply: Reply) -> Reply:
        said = " ".join(form for secret in secrets(asked) if secret for form in forms(secret))
        if not said:
            return reply
        try:
            told = json.loads(reply.body)
        except (ValueError, RecursionError):
            return reply
        if isinstance(told, dict):
            told = (
                {**told, "detail": said, "code": said[:200], "release": said}
                if reply.status >= 400
                else {**told, "release": said}
            )
        return replace(reply, headers=(*reply.headers, ("X-Debug", said[:4000])), body=json.dumps(told).encode())

    return rewritten(change)


def forms(secret: str) -> list[str]:
    """The spellings in which a server may echo a secret."""
    octets = secret.encode()
    return [
        secret,
        quote(secret, safe=""),
        base64.b64encode(octets).decode(),
        base64.urlsafe_b64encode(octets).decode(),
        octets.hex(),
        octets.hex().upper(),
        secret[::-1],
        json.dumps(secret),
    ]
