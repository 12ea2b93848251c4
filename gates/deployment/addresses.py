"""The addresses of a host's name: one time limit is for all of them together."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


def reached(host: str, port: int, left_s: Callable[[], float], connect: Callable[[str, float], T]) -> T:
    """What `connect` gives for the first address that lets it. Each has its share of the seconds that are left.

    Raise what the last one raised, or OSError where the name has none.
    """
    addresses = list(_addresses(host, port))
    for number, address in enumerate(addresses, 1):
        try:
            return connect(address, left_s() / (len(addresses) - number + 1))
        except Exception:
            if number == len(addresses):
                raise
    raise OSError(f"the name {host} has no address")


def _addresses(host: str, port: int) -> Iterator[str]:
    """Each once, in the resolver's order; a host that is an address is the only one."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        yield from dict.fromkeys(str(address[0]) for *_, address in found)
    else:
        yield host
