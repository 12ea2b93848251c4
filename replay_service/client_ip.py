"""Which address a request counts for: the peer, or what a trusted proxy says (contract, section 2). Pure."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
UNKNOWN_PEER = "unknown"


def client_ip(peer: str | None, forwarded: Sequence[bytes], trusted: Sequence[Network]) -> str:
    """The client's address in canonical form; `forwarded` are the X-Forwarded-For headers in order."""
    address = _parse((peer or "").partition("%")[0])
    if address is None:
        return UNKNOWN_PEER
    if not forwarded or not _is_in(address, trusted):
        return str(address)
    for entry in reversed(b",".join(forwarded).split(b",")):
        hop = _parse(entry.strip(b" \t").decode("latin-1"))
        if hop is None:
            return str(address)
        if not _is_in(hop, trusted):
            return str(hop)
    return str(address)


def _parse(text: str) -> Address | None:
    """The address; an IPv4-mapped one as IPv4, so that a client has only one."""
    if not text.isascii() or "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
