"""How a deployment writes the keys of its rate limit: the contract's are `replay:<company>:<ip>`. Pure."""

from __future__ import annotations

import ipaddress
import re

from gates.deployment.dialect.tokens import literal

LimitForm = tuple[str, str]
"""What a key begins with, and what stands between the company and the address at its end."""
CONTRACT_FORM: LimitForm = ("replay:", ":")
_JOINT = re.compile(r"[:|/#]")


def form_of(key: str) -> LimitForm | None:
    """The form of one key; None where no address stands at its end."""
    for at in [m.end() for m in _JOINT.finditer(key)]:
        try:
            ipaddress.ip_address(key[at:])
        except ValueError:
            continue
        before, joint = key[: at - 1], key[at - 1]
        return before[: before.rfind(joint) + 1], joint
    return None


def expressions(form: LimitForm, column: str) -> tuple[str, str]:
    """SQL of the contract's key over a column, and of what the column holds for the contract's key `{}`."""
    begin, joint = form
    read, write = f"substr({column}, {len(begin) + 1})", f"substr({{}}, {len(CONTRACT_FORM[0]) + 1})"
    if joint != ":":
        read, write = f"regexp_replace({read}, '[{joint}]', ':')", f"regexp_replace({write}, ':', '{joint}')"
    return f"{literal(CONTRACT_FORM[0])} || {read}", f"{literal(begin)} || {write}"
