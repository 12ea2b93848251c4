"""Step 1 for bodies: content type and size, decided before a byte is interpreted."""

import asyncio
import re

from starlette.types import Receive

from replay_service.exchange import RawHeaders, header_values
from replay_service.problems import Refusal

MAX_BODY_BYTES = 64 * 1024
MAX_DRAINED_BYTES = 1024 * 1024
"""A body up to this size is read and dropped before the 413, so that the client gets to read the answer."""

_JSON_TYPE = re.compile(
    rb'application/json[ \t]*(?:;[ \t]*charset[ \t]*=[ \t]*(?:utf-8|"utf-8")[ \t]*)?', re.IGNORECASE
)


class ClientGone(Exception):  # noqa: N818 - the client went away; nobody is left to be answered
    """The connection closed before the body was complete."""


async def read_body(headers: RawHeaders, receive: Receive, timeout_s: float) -> bytes:
    """The raw body. Raise Refusal 415, 413 or 408; ClientGone where it never completes."""
    try:
        async with asyncio.timeout(timeout_s):
            size, kept = await _drain(headers, receive)
    except TimeoutError:
        raise Refusal("request_timeout", f"The body took over {timeout_s:g} s.", closes=True) from None
    is_cut = size > MAX_DRAINED_BYTES
    if not _is_plain_json(headers):
        raise Refusal("unsupported_media_type", "Send Content-Type: application/json, without encoding.", closes=is_cut)
    if size > MAX_BODY_BYTES:
        raise Refusal("body_too_large", f"A body has at most {MAX_BODY_BYTES} bytes.", closes=is_cut)
    return kept


def _is_plain_json(headers: RawHeaders) -> bool:
    kinds = header_values(headers, b"content-type")
    encodings = header_values(headers, b"content-encoding")
    if len(kinds) != 1 or not _JSON_TYPE.fullmatch(kinds[0].strip(b" \t")):
        return False
    return all(encoding.strip(b" \t").lower() == b"identity" for encoding in encodings)


async def _drain(headers: RawHeaders, receive: Receive) -> tuple[int, bytes]:
    """(size, bytes kept). Over the limit all is dropped; a size over MAX_DRAINED_BYTES means that reading stopped."""
    declared = header_values(headers, b"content-length")
    if declared and declared[0].isdigit() and int(declared[0][:12]) > MAX_DRAINED_BYTES:
        return MAX_DRAINED_BYTES + 1, b""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= MAX_BODY_BYTES:
            chunks.append(chunk)
        if size > MAX_DRAINED_BYTES or not message.get("more_body", False):
            return size, b"".join(chunks)
