"""Reads what a deployment's OpenAPI document (3.x, or Swagger 2.0) says of its operations. Pure; raises on nothing."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from gates.text.foreign import count, text

METHODS = ("get", "post", "put", "patch", "delete")
MOST_OPERATIONS = 500
MOST_MEMBERS = 100
DEEPEST_MEMBER = 2
DEEPEST = 12
"""The most steps through references and parts of one schema."""
MOST_STEPS = 5_000
"""The most steps for all schemas of one operation. A schema that refers to itself twice doubles the work at each step;
large documents take 500 steps.
"""
MOST_STEPS_OF_ALL = MOST_OPERATIONS * 500
CODES = frozenset({"code", "error", "error_code", "errorCode", "type", "reason", "kind"})
"""Members that hold the code of an error."""
LISTS_OF_ERRORS = frozenset(
    {"errors", "details", "violations", "issues", "problems", "fields", "field_errors", "fieldErrors"}
)
ENVELOPES = ("data", "result", "payload", "response")
"""Envelopes: members that only hold the actual answer."""
BOUNDS = frozenset({"maximum", "maxLength", "maxItems", "default"})
PLACES = {"formData": "", "query": "query:", "path": "path:", "header": "header:"}
"""Place of a parameter -> its prefix in `names: http: fields`."""
TOLD = ("description", "example", "pattern")
_CODE = re.compile(r"`([a-z][a-z0-9]*(?:_[a-z0-9]+)+|[a-z]{6,30}|[A-Z]{6,30})`|\b([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\b")


@dataclass(frozen=True, slots=True)
class ApiOperation:
    """One method of one path. body, answer: members -> type; those outside a body as in `names:`. codes: status -> its
    machine-readable codes.
    """

    method: str
    path: str
    body: Mapping[str, str] = field(default_factory=dict)
    answer: Mapping[str, str] = field(default_factory=dict)
    codes: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    """Of requests and answers."""
    is_guarded: bool = False
    """Whether it says that it needs credentials."""
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Member of its answer -> its allowed texts, if listed."""
    errors: str = ""
    """The list of errors in a refusal of a body, as members divided by dots."""
    envelope: str = ""
    """The envelope: the member with the actual answer."""
    success: tuple[int, ...] = ()
    """The statuses of its success."""
    bounds: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Member of its body -> its `maximum`, `maxLength`, `maxItems` and `default`, where they are whole numbers."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Header of its requests, in lower case, or status of an answer -> its description and examples."""


@dataclass(frozen=True, slots=True)
class ApiDocument:
    """The operations of a document, as paths under BASE_URL; place: where it was found."""

    place: str
    operations: tuple[ApiOperation, ...] = ()
    key_headers: tuple[str, ...] = ()
    """Headers of its security schemes, except Authorization."""

    def operation(self, method: str, path: str) -> ApiOperation | None:
        return next((o for o in self.operations if (o.method, o.path) == (method, path)), None)


def read_document(place: str, document: Mapping[str, Any], base_path: str = "") -> ApiDocument | None:
    """The document, or None if it is not OpenAPI. base_path: the path of BASE_URL, which paths may repeat."""
    if not isinstance(document.get("paths"), dict) or not {"openapi", "swagger"} & set(document):
        return None
    reader = _Reader(document)
    prefix = reader.prefix()
    found = []
    for path, item in list(document["paths"].items())[:MOST_OPERATIONS]:
        if not isinstance(item, dict):
            continue
        whole = f"{prefix}{path}"
        own = whole.removeprefix(base_path) if base_path and whole.startswith(f"{base_path}/") else str(path)
        found += [
            reader.operation(m.upper(), text(own, 200), item[m], item) for m in METHODS if isinstance(item.get(m), dict)
        ]
    return ApiDocument(place, tuple(found[:MOST_OPERATIONS]), reader.key_headers())


class _Reader:
    """Resolves references within one document, to a limited depth."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document, self.left, self.left_of_all = document, MOST_STEPS, MOST_STEPS_OF_ALL

    def prefix(self) -> str:
        """The path of the first server."""
        servers = self.document.get("servers")
        url = (
            servers[0].get("url", "") if isinstance(servers, list) and servers and isinstance(servers[0], dict) else ""
        )
        try:
            path = urlsplit(str(url)).path
        except ValueError:
            path = ""
        return str(self.document.get("basePath") or path).rstrip("/")

    def operation(self, method: str, path: str, given: Mapping[str, Any], item: Mapping[str, Any]) -> ApiOperation:
        self.left_of_all -= MOST_STEPS - max(self.left, 0)
        self.left = min(MOST_STEPS, self.left_of_all)
        parameters = [self.followed(p) for p in (*_listed(item.get("parameters")), *_listed(given.get("parameters")))]
        body = self.inside(self.content(self.followed(given.get("requestBody"))))
        for one in parameters:
            if one.get("in") == "body":
                body = self.inside(one.get("schema"))
            elif place := PLACES.get(str(one.get("in"))):
                name = f"{place}{text(one.get('name', ''), 100)}"
                body = {**body, name: _type(self.followed(one.get("schema")) or one)}
        responses = {str(k): self.followed(v) for k, v in _mapping(given.get("responses")).items()}
        good = next((r for k, r in responses.items() if k.startswith("2")), {})
        headers = [str(p.get("name", "")) for p in parameters if p.get("in") == "header"]
        headers += [str(h) for r in responses.values() for h in _mapping(r.get("headers"))]
        answered = self.content(good) or good.get("schema")
        answer, envelope = self.enveloped(answered)
        security = given.get("security", self.document.get("security"))
        headers += self.schemes(security)
        return ApiOperation(
            method,
            path,
            body,
            answer,
            {n: codes for k, r in responses.items() if (n := count(k)) and (codes := tuple(self.codes(r)))},
            tuple(dict.fromkeys(text(h, 100) for h in headers)),
            bool(security),
            {n: held for n in answer if (held := self.held(answered, n.rpartition(".")[2]))},
            self.errors_of(responses.get("400", responses.get("422", {}))),
            envelope,
            tuple(n for k in responses if (n := count(k)) and k.startswith("2")),
            self.bounds(self.content(self.followed(given.get("requestBody"))), parameters),
            dict(self.notes(parameters, responses, security)),
        )

    def bounds(self, schema: object, parameters: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
        """The limits of members inside and outside the body."""
        listed = list(self.properties(schema).items())[:MOST_MEMBERS]
        listed += [(f"{PLACES.get(str(p.get('in')), '')}{p.get('name', '')}", p.get("schema", p)) for p in parameters]
        whole = {text(n, 100): {k: v for k, v in self.followed(s).items() if k in BOUNDS} for n, s in listed}
        return {n: {k: v for k, v in said.items() if type(v) is int} for n, said in whole.items()}

    def notes(
        self, parameters: list[dict[str, Any]], responses: Mapping[str, Mapping[str, Any]], security: object
    ) -> Iterator[tuple[str, str]]:
        """Name of a header, or status -> its description."""
        known = self.known_schemes()
        schemes = [self.followed(known.get(name)) for one in _listed(security) for name in _mapping(one)]
        for one in (*parameters, *schemes):
            if one.get("in") == "header":
                said = (*map(one.get, TOLD), *map(self.followed(one.get("schema")).get, TOLD))
                yield (
                    text(one.get("name", ""), 100).lower(),
                    "\n".join(text(s, 1000) for s in said if isinstance(s, str)),
                )
        for status, answer in responses.items():
            yield status, text(answer.get("description", ""), 1000)

    def enveloped(self, schema: object) -> tuple[dict[str, str], str]:
        """The members of an answer, including those inside an envelope, and the envelope's name."""
        members = self.members(schema)
        for name in ENVELOPES:
            inner = self.members(self.properties(schema).get(name)) if name in members else {}
            if inner:
                return {**members, **inner}, name
        return self.inside(schema), ""

    def key_headers(self) -> tuple[str, ...]:
        """The headers of all security schemes that are keys."""
        listed = self.schemes([dict.fromkeys(self.known_schemes())])
        return tuple(text(h, 100) for h in listed if h and h != "Authorization")

    def known_schemes(self) -> dict[str, Any]:
        components = _mapping(_mapping(self.document.get("components")).get("securitySchemes"))
        return components or _mapping(self.document.get("securityDefinitions"))

    def schemes(self, security: object) -> list[str]:
        """The headers of the security schemes that an operation names."""
        known = self.known_schemes()
        found = []
        for name in (n for one in _listed(security) for n in _mapping(one)):
            scheme = self.followed(known.get(name))
            if scheme.get("type") == "apiKey" and scheme.get("in") == "header":
                found.append(str(scheme.get("name", "")))
            elif scheme.get("type") in {"http", "oauth2", "openIdConnect", "basic"}:
                found.append("Authorization")
        return found

    def followed(self, value: object, depth: int = 0) -> dict[str, Any]:
        """The object, or the one that its `$ref` names. Empty if the operation has used all its steps."""
        self.left -= 1
        found = _mapping(value) if self.left >= 0 else {}
        reference = found.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/") or depth > DEEPEST:
            return found
        place: Any = self.document
        for part in reference[2:].split("/")[:DEEPEST]:
            place = _mapping(place).get(part.replace("~1", "/").replace("~0", "~"))
        return self.followed(place, depth + 1)

    def content(self, value: Mapping[str, Any]) -> object:
        """The schema of the JSON content of a body or an answer."""
        kinds = _mapping(value.get("content"))
        chosen = next((c for k, c in kinds.items() if "json" in k), next(iter(kinds.values()), None))
        return _mapping(chosen).get("schema")

    def properties(self, schema: object, depth: int = 0) -> dict[str, Any]:
        found = self.followed(schema)
        made = dict(_mapping(found.get("properties")))
        if depth < 4:
            for part in (p for key in ("allOf", "oneOf", "anyOf") for p in _listed(found.get(key))):
                if inside := self.properties(part, depth + 1):
                    made = {**inside, **made}
                    self.left -= len(made) // MOST_MEMBERS
        return made

    def members(self, schema: object) -> dict[str, str]:
        """The members of an object's schema, with their types."""
        listed = list(self.properties(schema).items())[:MOST_MEMBERS]
        return {text(n, 100): _type(self.followed(s)) for n, s in listed}

    def inside(self, schema: object, outer: str = "", depth: int = 0) -> dict[str, str]:
        """The members of an object's schema and, as `outer.name`, those of the objects in it, with types."""
        found = {f"{outer}{name}": kind for name, kind in self.members(schema).items()}
        if depth < DEEPEST_MEMBER:
            for name, inner in list(self.properties(schema).items())[:MOST_MEMBERS]:
                if "." not in name:
                    found |= self.inside(inner, f"{outer}{text(name, 100)}.", depth + 1)
        return dict(list(found.items())[:MOST_MEMBERS])

    def held(self, schema: object, name: str) -> tuple[str, ...]:
        """The allowed texts of a member."""
        return tuple(dict.fromkeys(self.listed(schema, frozenset({name}))))

    def codes(self, answer: Mapping[str, Any]) -> Iterator[str]:
        """Codes of an error answer: the values of a member like `code`, else words in backticks or like A_B."""
        yield from dict.fromkeys(self.listed(self.content(answer) or answer.get("schema"), CODES))
        yield from ("".join(found) for found in _CODE.findall(text(answer.get("description", ""), 2_000)))

    def errors_of(self, answer: Mapping[str, Any]) -> str:
        """The place of the list of errors of a refused body; empty if it is not documented."""
        members = self.properties(self.content(answer) or answer.get("schema"))
        for parent, inside in (("", members), *((n, self.properties(s)) for n, s in members.items())):
            for name, schema in inside.items():
                if name in LISTS_OF_ERRORS and _type(self.followed(schema)) == "array":
                    return text(f"{parent}.{name}" if parent else name, 200)
        return ""

    def listed(self, schema: object, names: frozenset[str], depth: int = 0) -> Iterator[str]:
        """The allowed texts of members with these names, anywhere in a schema."""
        found = self.followed(schema)
        if depth > DEEPEST // 2:
            return
        for part in (p for key in ("allOf", "oneOf", "anyOf") for p in _listed(found.get(key))):
            yield from self.listed(part, names, depth + 1)
        for name, inner in islice(_mapping(found.get("properties")).items(), MOST_MEMBERS):
            own = self.followed(inner)
            if name in names:
                yield from (text(v, 100) for v in (*_listed(own.get("enum")), own.get("const")) if isinstance(v, str))
            if own.get("properties") or own.get("allOf"):
                yield from self.listed(own, names, depth + 1)


def _type(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type", "")
    kinds = [k for k in _listed(kind) if k != "null"] if isinstance(kind, list) else [kind]
    return text(schema.get("format") or (kinds[0] if kinds else ""), 40)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
