"""W3C trace context: each request of the gate begins a trace, so that a finding leads to the spans of the service."""

import secrets

from gates.deployment.requests import Request

HEADER = "traceparent"


def new_trace() -> str:
    """The id of a trace, in 32 hexadecimal digits."""
    return secrets.token_hex(16)


def traceparent(trace: str, *, sampled: bool = True) -> str:
    """The header's value: the trace, a parent span of its own, and whether the service should keep its spans."""
    return f"00-{trace}-{secrets.token_hex(8)}-{'01' if sampled else '00'}"


def traced(request: Request) -> tuple[Request, str]:
    """The request as the start of a trace, and its id; unchanged and without an id if it is part of a trace already."""
    if any(name.lower() == HEADER for name, _ in request.headers):
        return request, ""
    trace = new_trace()
    return request.adding_header(HEADER, traceparent(trace)), trace
