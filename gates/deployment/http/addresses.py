"""The addresses of a host name, tried within one time limit that includes the lookup."""

import ipaddress
import socket
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

from gates.deployment.http.limits import within

T = TypeVar("T")

HEAD_START_S = 0.5
"""An address that does not connect in this time is tried again after the others: it may lead nowhere (RFC 8305)."""
_LATE: set[str] = set()
"""Addresses that ran into that limit. They are tried last from then on."""
FIRST_ASKED: ContextVar[int] = ContextVar("first_asked", default=0)
"""Index of the address that this thread tries first. Threads differ, since each address may be another instance."""


def reached(host: str, port: int, left_s: Callable[[], float], connect: Callable[[str, float], T]) -> T:
    """The result of `connect` for the first address that works. Each has a head start, then a share of the remaining
    time. Raise the last error, or OSError if the name has no address.
    """
    found = _addresses(host, port, left_s)
    first = FIRST_ASKED.get() % max(1, len(found))
    addresses = sorted([*found[first:], *found[:first]], key=_LATE.__contains__)
    for address in addresses[:-1]:
        began = time.monotonic()
        try:
            return connect(address, min(left_s(), HEAD_START_S))
        except Exception:  # noqa: BLE001  -- any error is reported below
            if time.monotonic() - began >= HEAD_START_S:
                _LATE.add(address)
    again = [*addresses[-1:], *addresses[:-1]]
    for number, address in enumerate(again, 1):
        try:
            return connect(address, left_s() / (len(again) - number + 1))
        except Exception:
            if number == len(again):
                raise
    raise OSError(f"the name {host} has no address")


def _addresses(host: str, port: int, left_s: Callable[[], float]) -> list[str]:
    """Each address once, in the resolver's order; a host that is an address is the only one."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        try:
            found = within(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), left_s())
        except UnicodeError:
            raise OSError(f"{host} is no name of a host") from None
        return list(dict.fromkeys(str(address[0]) for *_, address in found))
    return [host]
