"""Translates HTTP requests and answers between the contract (our side) and the deployment (the wire)."""

import dataclasses
import json

from gates.deployment.dialect.current import http_words
from gates.deployment.dialect.places import OF_A_PATH, AbsentMember
from gates.deployment.requests import Answer, Request
from gates.text.foreign import json_object

PROBLEM = "application/problem+json"


def on_the_wire(request: Request) -> Request:
    """The request as the deployment receives it."""
    words = http_words()
    if words is None:
        return request
    path, members, body = words.sent(request.path, request.body)
    headers = [(words.sent_headers.get(k.lower(), k), v) for k, v in request.headers] + members
    given = {k.lower() for k, _ in headers}
    headers += [(k, v) for k, v in words.extra_headers if k.lower() not in given]
    return dataclasses.replace(request, path=path, headers=tuple(headers), body=body)


def understood(answer: Answer, method: str, path: str) -> Answer:
    """The answer to a method of a path (the contract's), translated to the contract; `received` keeps what came."""
    words = http_words()
    if words is None:
        return answer
    headers = tuple(words.read_header(k, v) for k, v in answer.headers)
    status, body = understood_bytes(answer.status, answer.body, method, path)
    if status >= 400 and words.has_own_errors and body != answer.body:
        headers = tuple((k, PROBLEM if k == "content-type" else v) for k, v in headers)
    return Answer(status, headers, body, answer.elapsed_ms, received=answer)


def understood_bytes(status: int, body: bytes, method: str, path: str) -> tuple[int, bytes]:
    """Status and body of an answer to a method of a path (the contract's), translated to the contract."""
    words = http_words()
    if words is None:
        return status, body
    status = words.read_success(status, method, path)
    if not (found := json_object(body)):
        return status, body
    status, members = words.read(status, found, words.refusals(method, path))
    return status, body if members == found else json.dumps(members, separators=(",", ":")).encode()


def real_head(head: str) -> str:
    """The head of a request written by hand: `{path}` and a path of the contract, then lines of headers."""
    words = http_words()
    if words is None:
        return head
    first, *lines = head.strip("\n").split("\n")
    method, _, rest = first.partition("{path}")
    path, space, version = rest.partition(" ")
    named = [(name, colon, value) for name, colon, value in (line.partition(":") for line in lines)]
    real = [words.sent_headers.get(name.lower(), name) + colon + value for name, colon, value in named]
    return "\n".join([method + "{path}" + words.path(path) + space + version, *real, *words.extra_lines])


def real_body(body: bytes) -> bytes:
    """The bytes of a body as sent, for callers that split them. Sign these bytes."""
    words = http_words()
    return body if words is None else words.sent("/dlq-replay", body)[2]


def can_be_said(body: bytes) -> bool:
    """Whether a replay can express all that the body says: a member outside the body is text, and occurs once."""
    try:
        real_body(body)
    except AbsentMember:
        return False
    return True


def contract_path(path: str) -> str:
    """The contract's path for a real one, as the target documents it."""
    words = http_words()
    return path if words is None else words.contract_path(path)


def real_member(name: str) -> str:
    words = http_words()
    return name if words is None else words.member(name)


def real_code(code: str) -> str:
    words = http_words()
    return code if words is None else words.code(code)


def contract_metric(name: str) -> str:
    """The contract's name of a real series; other names stay."""
    words = http_words()
    return name if words is None else next((ours for ours, real in words.metrics.items() if real == name), name)


def path_of(path: str, company: str) -> str:
    """A path of the contract to something of a company's; deployments may have the company in that path."""
    words = http_words()
    return f"{path}{OF_A_PATH}{company}" if words is not None and words.needs_company(path) else path


def real_path(path: str) -> str:
    words = http_words()
    return path if words is None else words.path(path)
