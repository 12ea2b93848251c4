"""The requests of `--url`: method, body, headers and a list of them; no secret is stored."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gates.deployment.target import Target
from gates.errors import ConfigError, UsageError
from gates.evidence import TargetKind
from gates.proof.workbench.servers import Asked, Reply, serve
from gates.stages import load_process
from loadtests.plan import LoadPlan, UrlRequest
from loadtests.thresholds.reading import ThresholdsFileError
from loadtests.thresholds.requests import parse_requests
from tests.loadtests.load_process import finish, messages, options, start, verdicts

TARGET = Target(TargetKind.PRODUCTION)
LIST = """[
  {method: 'POST', path: '/orders', headers: {Authorization: 'Bearer ${TOKEN}'}, body: {id: 1, of: '${TOKEN}'}, expect: 201},
  {name: 'look', path: '/orders?all=1', headers: {Accept: 'text/html'}},
  {method: 'head', path: '/x'},
]"""  # noqa: E501


def read(text: str) -> tuple[UrlRequest, ...]:
    return parse_requests(text, "r.js", {"TOKEN"})


def test_a_list_is_read() -> None:
    """Defaults are GET and 200..299; a body that is no text is JSON, and says so; names come from method and path."""
    order, look, head = read(LIST)
    assert order == UrlRequest(
        "POST /orders",
        "POST",
        "/orders",
        (("Authorization", "Bearer ${TOKEN}"), ("Content-Type", "application/json")),
        '{"id": 1, "of": "${TOKEN}"}',
        201,
    )
    assert look == UrlRequest("look", "GET", "/orders?all=1", (("Accept", "text/html"),))
    assert (head.name, head.method) == ("HEAD /x", "HEAD")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("[]", 1, "no request"),
        ("{path: '/'}", 1, "a list was expected"),
        ("[{pfad: '/'}]", 3, "known one is 'path'"),
        ("[{path: 'orders'}]", 9, "no path of a request"),
        ("[{path: '/a b'}]", 9, "no path of a request"),
        ("[{method: 'GET /x HTTP/1.1'}]", 11, "no method"),
        ("[{headers: {Authorization: 'Bearer abc'}}]", 28, "would be stored with the plan"),
        ("[{headers: {'x-api-key': 'abc'}}]", 26, "would be stored with the plan"),
        ("[{headers: {Accept: 'a\\r\\nB: c'}}]", 21, "no header may have"),
        ("[{headers: {'Content-Length': '3'}}]", 13, "no header that can be given"),
        ("[{body: '${OTHER}'}]", 9, "OTHER is not set"),
        ("[{name: 'a'}, {name: 'a'}]", 15, "are called 'a'"),
    ],
)
def test_a_mistake_is_said_with_its_place(text: str, place: int, words: str) -> None:
    """File, line, column, and what was allowed; nothing is sent."""
    with pytest.raises(ThresholdsFileError) as caught:
        read(text)
    assert str(caught.value).startswith(f"r.js:1:{place}: "), str(caught.value)
    assert words in str(caught.value)


@contextmanager
def recording() -> Iterator[tuple[str, Counter[tuple[str, ...]]]]:
    """A server that notes method, path, authorization and body, and makes orders."""
    seen: Counter[tuple[str, ...]] = Counter()

    def answer(asked: Asked) -> Reply:
        seen[asked.method, asked.path, asked.header("Authorization"), asked.body.decode()] += 1
        return Reply(201 if asked.method == "POST" else 200, (), b"{}")

    with serve(answer) as url:
        yield f"{url}/base", seen


def test_all_requests_are_made_by_turns_and_counted_by_name(tmp_path: Path) -> None:
    """What the server saw is what was asked for, with the value of the variable; which no file of the run holds."""
    text = (
        "{'checks{name:look}': ['rate>0.5'], 'checks{name:POST /orders}': ['rate>0.5'], http_req_failed: ['rate<0.05']}"
    )
    with recording() as (url, seen):
        plan = LoadPlan(
            url, "t.js", text, url_only=True, requests_name="r.js", requests_text=LIST, rate_per_s=300.0, duration_s=1.0
        )
        result = finish(start(plan, tmp_path, TOKEN="s3cret-of-the-test"), tmp_path)
    assert set(verdicts(result).values()) == {"pass"}, messages(result)
    body = '{"id": 1, "of": "s3cret-of-the-test"}'
    assert set(seen) == {
        ("POST", "/base/orders", "Bearer s3cret-of-the-test", body),
        ("GET", "/base/orders?all=1", "", ""),
        ("HEAD", "/base/x", "", ""),
    }
    assert max(seen.values()) - min(seen.values()) <= 1
    assert "s3cret" not in "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())


def test_options_describe_one_request(tmp_path: Path) -> None:
    """Method, headers and body on the command line are a list of one."""
    words = ("--method", "PUT", "--header", "Accept: a/b", "--header", "X-Y: ${TOKEN}", "--body", "text")
    plan = load_process.plan_of(TARGET, options("--url", "http://a.test/x", *words))
    expected = UrlRequest("url", "PUT", "", (("Accept", "a/b"), ("X-Y", "${TOKEN}")), "text")
    assert parse_requests(plan["requests_text"], plan["requests_name"], {"TOKEN"}) == (expected,)
    for wrong in (("--method", "PUT"), ("--url", "http://a.test", "--body", "a", "--requests", "b")):
        with pytest.raises(UsageError):
            load_process.plan_of(TARGET, options(*wrong))
    with pytest.raises(ConfigError):
        load_process.plan_of(TARGET, options("--url", "http://a.test", "--requests", str(tmp_path / "none")))


def test_a_secret_on_the_command_line_is_refused_and_not_kept(tmp_path: Path) -> None:
    """Nothing in the output folder holds what was given by mistake."""
    with pytest.raises(ConfigError, match="would be stored with the plan"):
        load_process.checks_of(TARGET, options("--url", "http://a.test", "--header", "Cookie: id=s3cret"), tmp_path)
    assert "s3cret" not in json.dumps([path.read_text() for path in tmp_path.rglob("*") if path.is_file()])
