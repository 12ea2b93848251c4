"""Reads the requests of `--url`: a list of {name, method, path, headers, body, expect}, made by turns.

`${NAME}` in a header or a body is a variable of the sender: the plan of a run is stored, and holds no secret.
"""

import json
import re
from collections.abc import Collection

from loadtests.plan import UrlRequest
from loadtests.thresholds.literal import LiteralNode, Members
from loadtests.thresholds.reading import Reader, read_nodes

FIELDS = ("name", "method", "path", "headers", "body", "expect")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PATH = re.compile(r"/[!-~]*")
_VALUE = re.compile(r"[\t -~]*")
VARIABLE = re.compile(r"\$\{(\w+)\}")
SECRET = {"authorization", "cookie", "proxy-authorization", "x-api-key"}
OURS = {"host", "content-length", "transfer-encoding", "connection"}


def parse_requests(text: str, name: str, variables: Collection[str]) -> tuple[UrlRequest, ...]:
    """The requests of a text called `name`. Raise ThresholdsFileError, also for a variable that is not set."""
    return _RequestsReader(name, variables).build(read_nodes(text, name)) if text else ()


class _RequestsReader(Reader):
    def __init__(self, name: str, variables: Collection[str]) -> None:
        super().__init__(name)
        self.variables = variables

    def build(self, root: LiteralNode) -> tuple[UrlRequest, ...]:
        some = self.listed(root, "[{method: 'POST', path: '/orders', body: {id: 1}}]")
        if not some:
            raise self.error(root, "there is no request; without one nothing can be loaded")
        found: dict[str, UrlRequest] = {}
        for node in some:
            one = self.request(node)
            if one.name in found:
                raise self.error(node, f"two requests are called {one.name!r}; give each a name of its own")
            found[one.name] = one
        return tuple(found.values())

    def request(self, node: LiteralNode) -> UrlRequest:
        given = self.given(node, "a request", FIELDS)
        method = self.matching(given, "method", _TOKEN, "GET").upper()
        path = self.matching(given, "path", _PATH, "")
        body, is_json = self.body(given["body"]) if "body" in given else ("", False)
        headers = self.headers(given["headers"]) if "headers" in given else ()
        if is_json and "content-type" not in {header.lower() for header, _ in headers}:
            headers = (*headers, ("Content-Type", "application/json"))
        name = self.text(given["name"]) if "name" in given else f"{method} {path}".strip()
        return UrlRequest(
            name, method, path, headers, body, self.whole(given["expect"], 100) if "expect" in given else 0
        )

    def matching(self, given: dict[str, LiteralNode], key: str, form: re.Pattern[str], default: str) -> str:
        if key not in given:
            return default
        found = self.text(given[key])
        if not form.fullmatch(found):
            raise self.error(given[key], f"{found[:80]!a} is no {key} of a request")
        return found

    def headers(self, node: LiteralNode) -> tuple[tuple[str, str], ...]:
        found = []
        for header, (at, value) in self.members(node, "headers").items():
            if not _TOKEN.fullmatch(header) or header.lower() in OURS:
                raise self.error(at, f"{header[:80]!a} is no header that can be given")
            said = self.known_variables(value, self.text(value))
            if not _VALUE.fullmatch(said):
                raise self.error(value, f"the value of {header} has characters that no header may have")
            if header.lower() in SECRET and not VARIABLE.search(said):
                raise self.error(
                    value, f"{header} would be stored with the plan; write '${{NAME}}' and set that variable"
                )
            found.append((header, said))
        return tuple(found)

    def body(self, node: LiteralNode) -> tuple[str, bool]:
        """The text, and whether it was given as a value rather than as text."""
        if isinstance(node.value, str):
            return self.known_variables(node, node.value), False
        return self.known_variables(node, json.dumps(plain(node), allow_nan=False)), True

    def known_variables(self, node: LiteralNode, text: str) -> str:
        for name in VARIABLE.findall(text):
            if name not in self.variables:
                raise self.error(node, f"the variable {name} is not set; export it and run again")
        return text


def plain(node: LiteralNode) -> object:
    """A node as the value that JSON has; whole numbers without a fraction."""
    if isinstance(node.value, Members):
        return {key: plain(value) for key, (_, value) in node.value.items.items()}
    if isinstance(node.value, list):
        return [plain(one) for one in node.value]
    is_whole = isinstance(node.value, float) and node.value.is_integer() and abs(node.value) < 2**53
    return int(node.value) if is_whole else node.value  # type: ignore[arg-type]
