"""The values of variables and options, parsed at the edge: each parser returns the value or raises Unfit. Pure.
`option` makes a parser an argparse type, so an option and a variable of one meaning accept the same values.
"""

import argparse
import base64
import ipaddress
import json
import math
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

T = TypeVar("T")

LEAST_HMAC_BYTES, LEAST_JWT_BYTES = 16, 32
"""The contract, section 1: with shorter secrets the service does not start."""
LONGEST_KEY, LONGEST_RELEASE, LONGEST_ACTOR = 200, 200, 100

_COMPANY = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_FLAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}")
DRAFT = "gate doctor --write drafts it"
_UNREAD = re.compile(r"""^(["'`]).*\1$|\$\w|\$[({]|\{\{""")
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")


class Unfit(ValueError):  # noqa: N818  -- it is about the value
    """The value is not one of those allowed. The message says which are, and never repeats the value."""


def utf8(text: str) -> str:
    """Text without bytes that are not UTF-8 and without control characters."""
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise Unfit("UTF-8 text; some of its bytes are not")
    if any(c < " " or c == "\x7f" for c in text):
        raise Unfit("one line without control characters")
    return text


def company(text: str) -> str:
    """A UUID of 36 characters, in lower case."""
    if not _COMPANY.fullmatch(text):
        raise Unfit(
            "a UUID of 36 characters, like 00000000-0000-4000-8000-000000000004; `select id from companies` lists them"
        )
    return text.lower()


def id_of_type(text: str, kind: str) -> str:
    """An id of a type of `names.ids`: uuid, text, bigint or integer."""
    if kind == "uuid":
        try:
            return company(text)
        except Unfit as unfit:
            raise Unfit(f"{unfit}. Are ids of another type here? Then gate.yaml needs names: ids ({DRAFT})") from None
    if kind == "text":
        return utf8(text)
    if not re.fullmatch(r"[0-9]{1,19}", text):
        raise Unfit(f"a whole number, as names.ids in gate.yaml says ({kind})")
    return str(int(text))


def any_id(text: str) -> str:
    """An id of any type, as long as the deployment's is unknown: a whole number, or a UUID in lower case."""
    return text if re.fullmatch(r"[0-9]{1,19}", text) else company(text)


def idempotency_key(text: str) -> str:
    if not 1 <= len(text) <= LONGEST_KEY or not text.isascii() or not text.isprintable():
        raise Unfit(f"1 to {LONGEST_KEY} printable ASCII characters")
    return text


def flag_key(text: str) -> str:
    if not _FLAG.fullmatch(text):
        raise Unfit(
            "letters, digits and . _ : / - in up to 200 characters, like outbox.enabled; `gate flags` lists them"
        )
    return text


def release(text: str) -> str:
    """Refuses invisible characters, and quotes or variables that a shell or template should have replaced."""
    if len(utf8(text)) > LONGEST_RELEASE or not text.isprintable() or _UNREAD.search(text):
        raise Unfit(f"up to {LONGEST_RELEASE} visible characters, as /version says it, without quotes or $NAME")
    return text


def reason(text: str) -> str:
    if not utf8(text).strip():
        raise Unfit("why this is done; it is empty")
    return text


def actor(text: str) -> str:
    """Who acts, for audit rows."""
    if not text.strip() or len(utf8(text)) > LONGEST_ACTOR:
        raise Unfit(f"1 to {LONGEST_ACTOR} characters on one line")
    return text.strip()


def http_url(text: str) -> str:
    """An absolute http or https URL without query, fragment and trailing slash, in ASCII as it is sent."""
    allowed = "http://HOST[:PORT][/PATH] or https://..., PORT 1 to 65535, without spaces, query and fragment"
    try:
        parts = urlsplit(text)
        right = parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port > 0)
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError:
        raise Unfit(allowed) from None
    if not right or re.search(r"[\s?#\\<>\"]", text):
        raise Unfit(allowed)
    if not text.isascii():
        login, at, _ = parts.netloc.rpartition("@")
        place = (f"[{host}]" if ":" in host else host) + (f":{parts.port}" if parts.port else "")
        text = f"{parts.scheme}://{login}{at}{place}{quote(parts.path, safe=string.punctuation)}"
    return text.rstrip("/")


def base_url(text: str) -> str:
    """Like `http_url`, without @ in its path: there it is the end of a login with an unescaped slash."""
    if "@" in urlsplit(found := http_url(text)).path:
        raise Unfit("http://USER:PASSWORD@HOST with %2F for each / of the login, and %40 for each @ of the path")
    return found


def webhook(text: str) -> str:
    """Like `http_url`, but a query may be part of the address."""
    http_url(text.partition("?")[0])
    return text


def conninfo(text: str) -> str:
    """A connection string of PostgreSQL, as URI or as keywords, with one host or several."""
    allowed = (
        "a connection string of PostgreSQL: postgresql://USER:PASSWORD@HOST:PORT/NAME, special characters of the "
        "password percent-encoded, or host=... port=... dbname=... user=..."
    )
    try:
        parts = conninfo_to_dict(text)
    except (psycopg.Error, UnicodeError, ValueError):
        raise Unfit(allowed) from None  # the parser's message may contain a part of the password
    ports = str(parts.get("port") or "").split(",")
    if any(p and not (re.fullmatch("[0-9]{1,5}", p) and 1 <= int(p) <= 65_535) for p in ports):
        raise Unfit(f"{allowed}; with a port from 1 to 65535")
    hosts = str(parts.get("host") or "").split(",")
    _, is_url, rest = text.partition("://")
    authority, _, path = rest.partition("?")[0].partition("/")
    if any("@" in host[1:] for host in hosts) or (is_url and "@" in path and "@" not in authority):
        raise Unfit(allowed)  # a part of the password would be a name, which errors and reports show
    return text


def token(text: str) -> str:
    """A JSON Web Token: header and claims are JSON objects; its signature is not checked."""
    parts = text.split(".")
    if len(parts) != 3 or not all(_SEGMENT.fullmatch(p) for p in parts) or not all(map(_is_object, parts[:2])):
        raise Unfit("a JSON Web Token, header.claims.signature, without the word Bearer")
    return text


def _is_object(segment: str) -> bool:
    try:
        return isinstance(json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))), dict)
    except (ValueError, RecursionError):
        return False


def hmac_secrets(text: str) -> tuple[str, ...]:
    """Secrets separated by commas; the first signs."""
    found = tuple(part.strip() for part in text.split(","))
    if any(len(s.encode()) < LEAST_HMAC_BYTES for s in found):
        raise Unfit(
            f"secrets of {LEAST_HMAC_BYTES} bytes or more, with single commas between them; no element may be empty"
        )
    return found


def jwt_secret(text: str) -> str:
    if len(text.encode()) < LEAST_JWT_BYTES:
        raise Unfit(f"{LEAST_JWT_BYTES} bytes or more")
    return text


def networks(text: str) -> tuple[str, ...]:
    """CIDRs separated by commas."""
    found = tuple(part.strip() for part in text.split(","))
    try:
        for one in found:
            ipaddress.ip_network(one, strict=False)
    except ValueError:
        raise Unfit("CIDRs with single commas between them, like 10.0.0.0/8,fd00::/8") from None
    return found


def switch(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise Unfit("true or false")
    return text.lower() == "true"


def whole(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    """Whole numbers within bounds, both inclusive; the greatest is that of an integer column."""
    allowed = f"{least} or more, up to {most}" if most == 2**31 - 1 else f"{least} to {most}"

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise Unfit(f"{allowed}, a whole number")
        return int(text)

    return parse


def decimal(least: float, most: float) -> Callable[[str], float]:
    """Finite numbers within bounds, both inclusive."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise Unfit(f"{least:g} to {most:g}")
        return number

    return parse


def folder(text: str) -> Path:
    """A folder, or a place where one can be created."""
    if not text.strip():
        raise Unfit("a folder, or the name of one to be made; it is empty")
    path = Path(utf8(text))
    try:
        standing = next((p for p in (path, *path.parents) if _is_there(p)), None)
    except OSError as error:  # too long a name, or a folder that this user may not enter
        raise Unfit(f"a folder, or the name of one to be made; it cannot be looked at: {error.strerror}") from None
    if standing is not None and not standing.is_dir():
        raise Unfit("a folder, or the name of one to be made; it names a file")
    return path


def _is_there(path: Path) -> bool:
    """Whether the path exists. Raise OSError if unknown, for which Path.exists returns False since Python 3.14."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def option(parse: Callable[[str], T]) -> Callable[[str], T]:
    """The parser as the `type` of an option: argparse then names the option and exits with code 2."""

    def of_argument(text: str) -> T:
        try:
            return parse(text)
        except Unfit as unfit:
            raise argparse.ArgumentTypeError(f"{text[:80]!a}; allowed: {unfit}") from None

    return of_argument
