"""What the expression of a policy asks for, as far as its text shows that it asks for nothing."""

import re
from collections.abc import Iterator

NAMES_NO_TENANT = re.compile(
    r"true|notfalse|('?[\w.]+'?)=\1|[\w.]*(company|tenant|scope|key)_?(id)?isnotnull"
    r"|(select)?(auth\.)?(jwt|current_setting)[^=]*isnull"
)
BARE = re.compile(r"[\s()]|::[a-z]+")
OF_A_CLIENT = re.compile(r"'(request\.(headers?|cookies?|path|method)\b[^']*|application_name)'")
CLAIMS = re.compile(r"request\.jwt|jwt\(|auth\.uid")
OR = " OR "


def is_true(expression: str) -> bool:
    """Whether a policy's expression lets every row through, or every row that has a tenant: an operand of OR does."""
    return any(NAMES_NO_TENANT.fullmatch(BARE.sub("", part.lower())) for part in operands(expression))


def believes_a_client(expression: str) -> bool:
    """Whether an operand of OR asks for what a client writes itself, and for no claim beside it."""
    return any(OF_A_CLIENT.search(part) and not CLAIMS.search(part) for part in operands(expression))


def operands(expression: str) -> Iterator[str]:
    """The operands of OR, each on its own."""
    text = " ".join(expression.split())
    cuts, level, in_quotes, is_wrapped = [-len(OR)], 0, False, text.startswith("(")
    for place, character in enumerate(text):
        in_quotes ^= character == "'"
        if in_quotes:
            continue
        level += (character == "(") - (character == ")")
        is_wrapped &= level > 0 or place == len(text) - 1
        if level == 0 and text.startswith(OR, place):
            cuts.append(place)
    if is_wrapped and len(text) > 1:
        yield from operands(text[1:-1])
    elif len(cuts) == 1:
        yield text
    else:
        for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True):
            yield from operands(text[start + len(OR) : end])
