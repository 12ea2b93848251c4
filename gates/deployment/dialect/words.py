"""The HTTP of a deployment in its own words: paths, members of bodies, codes, ids, claims and signatures.

A body is rewritten token by token and never parsed, so that what a drill does to it (a key twice, a number as 1e1, no
JSON at all) reaches the target as it was meant.
"""

import datetime as dt
import json
import re
import uuid
from collections.abc import Callable, Collection, Mapping
from typing import Any

from gates.contract.contract import contract
from gates.contract.names import Names, user_of
from gates.contract.places import BODY, places_of
from gates.deployment.dialect import places
from gates.deployment.dialect.places import found_at, last_of, put, without
from gates.deployment.dialect.signature import SignatureForm

COUNTED = ("bigint", "integer")
"""Types of ids that are JSON numbers."""
KIND_OF_MEMBER: Mapping[str, str] = {
    "company_id": "company",
    "dlq_ids": "item",
    "items": "item",
    "not_found": "item",
    "ineligible": "item",
    "event_id": "event",
    "replay_run_id": "run",
}
"""Member of a body or an answer -> the kind of id that it holds, or holds a list of."""
ONLY_SENT = frozenset(m for e in contract().endpoints.values() for m in e.body) - {
    m for e in contract().endpoints.values() for m in e.answer
}
"""Members of bodies that no answer has, so an answer may use their real name for something else."""
ONLY_ANSWERED = frozenset(m for e in contract().endpoints.values() for m in e.answer) - {
    m for e in contract().endpoints.values() for m in e.body
}
TIMES = frozenset(m for e in contract().endpoints.values() for m, kind in e.answer.items() if kind == "time")
NAMES_OF_A_FIELD = ("field", "path", "name", "pointer", "param", "property", "loc", "location", "key")
"""Names by which an entry of an error's list may give the wrong member; the contract's first."""
TEXTS_OF_AN_ERROR = ("message", "problem", "msg", "reason", "detail", "description", "error", "title", "issue")
DONE, ACCEPTED = 200, 202
NOBODY = "6e6f626f-6479-4000-8000-000000000000"
"""The id in a path if the request names nobody."""
_NOWHERE = object()
MOST_EXACT = 2**53
"""A larger number may change when JSON is parsed."""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class HttpWords:
    """What `names.http` says. environ: has the values of $NAME in `extra_headers`."""

    def __init__(self, names: Names, environ: Mapping[str, str]) -> None:
        given: Mapping[str, Any] = names.given.get("http", {})
        self._names = names
        paths = {ours: theirs for ours, theirs in given.get("paths", {}).items() if theirs is not None}
        self._paths = sorted(paths.items(), key=lambda item: -len(item[0]))
        fields: Mapping[str, Any] = given.get("fields", {})
        self._places = places.MemberPlaces.of(fields)
        absent = {m for m, theirs in fields.items() if theirs is None}
        self._absent_members = frozenset(absent | self._places.answer.keys())
        spelled = places_of(fields)
        in_body = {ours: [name for place, name in told if place == BODY] for ours, told in spelled.items()}
        self._members = {ours: names[0] for ours, names in in_body.items() if names}
        self._answered = {
            ours: [name for place, name in told if place in {BODY, "answer"}]
            for ours, told in spelled.items()
            if ours not in ONLY_SENT
        }
        self._told = {name: ours for ours, told in spelled.items() for _, name in told if ours not in ONLY_ANSWERED}
        self._told |= {name.rpartition(".")[2]: ours for name, ours in self._told.items() if "." in name}
        sent = {ours: theirs for ours, theirs in self._members.items() if ours not in ONLY_ANSWERED}
        self._inner = frozenset(theirs for theirs in sent.values() if "." in theirs)
        # rename a member made up by a drill that has a meaning here
        self._sent_members = {theirs: ours for ours, theirs in sent.items()} | sent
        self._values = {m: {r: c for c, r in v.items()} for m, v in given.get("values", {}).items()}
        self._ids_are_text = given.get("ids") == "text"
        self._envelope = str(given.get("envelope", ""))
        self._code_member = str(given.get("code_member", "code"))
        self._success = sorted(given.get("success", {}).items(), key=lambda item: -len(item[0]))
        token: Mapping[str, Any] = names.given.get("token", {})
        self._role_claim, self._token_roles = str(token.get("role", "role")), token.get("roles", {})
        self._signature = SignatureForm(given.get("signature", {}))
        self._real_codes: Mapping[str, Any] = given.get("codes", {})
        self._codes = _by_real(self._real_codes)
        self.metrics: Mapping[str, str] = {m: real for m, real in given.get("metrics", {}).items() if real}
        headers = {k.lower(): v for k, v in given.get("headers", {}).items()}
        self.sent_headers = headers
        self.received_headers = {v.lower(): k for k, v in headers.items()}
        self.extra_headers = tuple((k, _looked_up(v, environ)) for k, v in given.get("extra_headers", {}).items())
        self.secrets = {
            _looked_up(v, environ): v.removeprefix("$")
            for v in given.get("extra_headers", {}).values()
            if v.startswith("$")
        }

    @property
    def extra_lines(self) -> list[str]:
        """The headers of every request as lines."""
        return [f"{name}: {value}" for name, value in self.extra_headers]

    # --- what is sent --------------------------------------------------------------------------------------------

    def path(self, path: str) -> str:
        """The real path; what follows the fixed part stays, and missing values of its braces are nobody's ids."""
        return self.sent(path, b"")[0]

    def needs_company(self, path: str) -> bool:
        """Whether the real path contains the tenant, so that a caller must say whose it is."""
        return "company_id" in self._places.outside(self._template(path)[0])

    def sent(self, path: str, body: bytes) -> tuple[str, list[tuple[str, str]], bytes]:
        """The real path, the headers that are members, and the real body of a request. Raise AbsentMember."""
        path, _, said = path.partition(places.OF_A_PATH)
        real, rest = self._template(path)
        body, found = places.parted(body, self._places.outside(real))
        if said:
            found["company_id"] = json.dumps(said).encode()
        values = {m: places.as_text(m, token, self._sent_id(m, token)) for m, token in found.items()}
        filled = self._places.filled(real, values, self._nobody) + rest
        return self._places.asked(filled, values), self._places.headers(values), self.body(body)

    def _template(self, path: str) -> tuple[str, str]:
        """The fixed part of the real path, with its braces, and what follows it."""
        for ours, theirs in self._paths:
            rest = path.removeprefix(ours)
            if path.startswith(ours) and rest[:1] in {"", "/", "?"}:
                return str(theirs), rest
        return "", path

    def _nobody(self, member: str) -> str:
        """An id that nobody has, as it stands in a path."""
        said = json.dumps(NOBODY).encode()
        return places.as_text(member, said, self._sent_id(member, said))

    def contract_path(self, path: str) -> str:
        """The contract's path for a real one; a path that is no endpoint of the contract stays."""
        for ours, theirs in self._paths:
            if found := re.search(places.pattern_of(theirs) + r"(?=/|$)", path):
                return str(ours) + path[found.end() :]
        return path

    def code(self, code: str) -> str:
        real = self._real_codes.get(code, code)
        return str(real[0] if isinstance(real, list) else real)

    def member(self, name: str) -> str:
        """The real name of a member of a body."""
        return self._members.get(name, name)

    def body(self, body: bytes) -> bytes:
        """The body with the target's member names and ids, otherwise byte for byte. Raise AbsentMember if the target
        lacks a member: leaving it out would make another request.
        """
        tokens = places.TOKEN.findall(body)
        out, depth, member = [], 0, ""
        for at, token in enumerate(tokens):
            if token in {b"{", b"["}:
                depth += 1
            elif token in {b"}", b"]"}:
                depth -= 1
            elif depth == 1 and token[:1] == b'"' and _next(tokens, at) == b":":
                member = places.text_of(token)
                if member in self._absent_members:
                    raise places.AbsentMember(
                        f"names: in gate.yaml says that no body has {member}; this check sends it"
                    )
                real = self._sent_members.get(member, member)
                out.append(token if real == member else json.dumps(real).encode())
                continue
            elif depth in {1, 2} and not token.isspace() and token not in {b":", b","}:
                out.append(self._sent_id(member, token))
                continue
            out.append(token)
        return places.folded(b"".join(out), self._inner)

    def _sent_id(self, member: str, token: bytes) -> bytes:
        """An id in a body: our string becomes their number. What is no id keeps its form, mirrored. If ids travel as
        text (`ids: text`), nothing is mirrored.
        """
        kind, text = KIND_OF_MEMBER.get(member, ""), places.text_of(token) if token[:1] == b'"' else ""
        if kind in self._names.id_forms:
            return json.dumps(self._names.formed(kind, uuid.UUID(text))).encode() if _UUID.fullmatch(text) else token
        if not kind or self._names.id_type(kind) not in COUNTED:
            return token
        if _UUID.fullmatch(text):
            text = stranger(text, self._names.id_type(kind))
            token = b'"' + text.encode() + b'"'
        if self._ids_are_text:
            return token
        if token.isdigit():
            return b'"' + token + b'"'
        return text.encode() if re.fullmatch(r"[1-9][0-9]{0,18}", text) else token

    def sign(self, secret: str, message: bytes, unix_seconds: int | None = None, path: str = "/dlq-replay") -> str:
        """The signature header's value over the real bytes of a message: the body of a POST, or the path of a GET."""
        if message[:1] == b"/":
            return self._signature.value(secret, "GET", self.path(message.decode("latin-1")), b"", unix_seconds)
        real, _, body = self.sent(path, message)
        return self._signature.value(secret, "POST", real, body, unix_seconds)

    def claims(self, claims: Mapping[str, Any]) -> dict[str, Any]:
        """Claims with the tenant where the target looks for it, and the real names of roles."""
        found = dict(claims)
        if "role" in found:
            self._put_role(found, found.pop("role"))
        if "company_id" not in found:
            return found
        company = found.pop("company_id")
        if self._names.id_type("company") in COUNTED and isinstance(company, str):
            if _UUID.fullmatch(company):
                company = stranger(company, self._names.id_type("company"))
            if company.isascii() and company.isdigit() and not self._ids_are_text:
                company = int(company)
        if "company" in self._names.id_forms and isinstance(company, str) and _UUID.fullmatch(company):
            company = self._names.formed("company", uuid.UUID(company))
        if self._names.members is not None:
            if isinstance(found.get("sub"), str) and isinstance(company, str | int):
                found["sub"] = user_of(str(company))
            if not self._names.names_claim:
                return found
        put(found, self._names.tenant_claim, company)
        return found

    def _put_role(self, claims: dict[str, Any], role: Any) -> None:
        """Put the real name of a role where the target looks for it; a value that is no role stays."""
        if isinstance(role, str):
            role = self._token_roles.get(role) or self._names.roles.get(role) or role
        place = self._role_claim.removesuffix("[]")
        put(claims, place, [role] if place != self._role_claim else role)

    # --- what is received ----------------------------------------------------------------------------------------

    def read_claims(self, claims: Mapping[str, Any]) -> dict[str, Any]:
        """The claims of a target's token with the tenant as `company_id` and the contract's name of the role."""
        found = dict(claims)
        tenant, role = (
            found_at(claims, place) for place in (self._names.tenant_claim, self._role_claim.removesuffix("[]"))
        )
        if tenant is not None:
            found["company_id"] = str(tenant)
        if isinstance(role, list) and self._role_claim.endswith("[]"):
            role = next((r for r in role if r in self._token_roles.values()), role[0] if role else None)
        if role is not None:
            found["role"] = next((ours for ours, theirs in self._token_roles.items() if theirs == role), role)
        return found

    def read_header(self, name: str, value: str) -> tuple[str, str]:
        """A header of an answer by the contract's name, in lower case, with the value translated."""
        ours = self.received_headers.get(name.lower(), name)
        return ours.lower(), self._values.get(ours, {}).get(value, value)

    def read_success(self, status: int, method: str, path: str) -> int:
        """The status of an answer to a method of a contract path: its own success code becomes the contract's."""
        for ours, theirs in self._success:
            if status == theirs and path.startswith(ours) and path[len(ours) :][:1] in {"", "/", "?"}:
                return ACCEPTED if (method, ours) == ("POST", "/events") else DONE
        return status

    @staticmethod
    def refusals(method: str, path: str) -> frozenset[str]:
        """The codes with which the contract's endpoint refuses; none if it is no endpoint of the contract."""
        found = [e for e in contract().endpoints.values() if e.method == method and e.is_at(path)]
        return frozenset(code for endpoint in found for code in endpoint.refusals)

    def read(self, status: int, found: Mapping[str, Any], refusals: Collection[str] = ()) -> tuple[int, dict[str, Any]]:
        """Status and members of an answer, translated to the contract, of an endpoint with these refusals."""
        members = dict(found)
        wrapped = found_at(members, self._envelope) if self._envelope else None
        if isinstance(wrapped, Mapping):
            members = {n: v for n, v in members.items() if n != self._envelope} | dict(wrapped)
        members = self._renamed(members)
        if "detail" in found:  # also where FastAPI's list of errors stands in it
            members.setdefault("detail", found["detail"])
        for member, values in self._values.items():
            if isinstance(members.get(member), str):
                members[member] = values.get(members[member], members[member])
        for member in TIMES & members.keys():
            members[member] = _moment(members[member])
        for member in KIND_OF_MEMBER.keys() & members.keys():
            members[member] = _ids_as_text(members[member])
        code = found_at(found, self._code_member)
        if status >= 400 and isinstance(code, str | int):
            came, (status, members["code"]) = status, self._read_code(status, str(code), refusals)
            if members.get("status") == came:
                members["status"] = status
            if self.has_own_errors:
                members |= {"type": "about:blank", "title": members["code"], "status": status}
                members.setdefault("detail", found_at(found, self._code_member.rpartition(".")[0] or "detail"))
        if isinstance(members.get("errors"), list):
            members["errors"] = [self._read_error(e) for e in members["errors"]]
        if "openapi" in members and isinstance(members.get("paths"), Mapping):
            members["paths"] = {self.contract_path(p): said for p, said in members["paths"].items()}
        return status, members

    def _renamed(self, members: dict[str, Any]) -> dict[str, Any]:
        """The members by the contract's names. One real member may stand for several of the contract's."""
        found, used = {}, set()
        for ours, names in self._answered.items():
            there = {
                theirs: value for theirs in names if (value := found_at(members, theirs, _NOWHERE)) is not _NOWHERE
            }
            if there:
                theirs = next((name for name, value in there.items() if value is not None), next(iter(there)))
                found[ours] = there[theirs]
                used.add(theirs)
        return {n: v for n, v in without(members, used).items() if n not in found} | found

    @property
    def has_own_errors(self) -> bool:
        """Whether errors come in the deployment's own envelope (`code_member`) instead of the contract's document."""
        return self._code_member != "code"

    def _read_error(self, error: Any) -> Any:
        """One entry of `errors`, which names a member."""
        said_of = error.items() if isinstance(error, Mapping) else ()
        paths = ((n, ".".join(map(str, v)) if isinstance(v, list) else v) for n, v in said_of)
        texts = {n: v for n, v in paths if isinstance(v, str)}
        # by its key; else by its text: the name of a member
        name = next((n for n in (*NAMES_OF_A_FIELD, *texts) if last_of(texts.get(n, "")) in self._told), "")
        name = name or next((n for n in NAMES_OF_A_FIELD if n in texts), "")
        if not name:
            return error
        field = texts[name] if name == "field" and texts[name] in self._told else last_of(texts[name])
        said = next((error[n] for n in TEXTS_OF_AN_ERROR if error.get(n)), None)
        said = said or next((v for n, v in texts.items() if n != name and " " in v), None)
        return {**error, "field": self._told.get(field, field), **({} if said is None else {"message": said})}

    def _read_code(self, status: int, code: str, refusals: Collection[str]) -> tuple[int, str]:
        """The contract's code for this one; a code that the endpoint uses comes first."""
        for ours, theirs in sorted(self._codes.get(code, ()), key=lambda told: told[0] not in refusals):
            if theirs is None:
                return status, ours
            if theirs == status:
                return STATUS_OF.get(ours, status), ours
        return status, code


STATUS_OF: Mapping[str, int] = {c: s for e in contract().endpoints.values() for c, s in e.refusals.items()}
"""Code of the contract -> its status."""


def stranger(uuid: str, kind: str) -> str:
    """A number that is nobody's id, in place of an id that a drill made up."""
    number = int(uuid.replace("-", ""), 16)
    return str(2**31 - 1 - number % 10**8 if kind == "integer" else MOST_EXACT - 1 - number % 10**14)


def _by_real(codes: Mapping[str, Any]) -> dict[str, list[tuple[str, int | None]]]:
    """Real code -> the contract's codes for it, each with its own status, if it has one."""
    found: dict[str, list[tuple[str, int | None]]] = {}
    for ours, theirs in codes.items():
        real, status = theirs if isinstance(theirs, list) else (theirs, None)
        found.setdefault(str(real), []).append((ours, status))
    return found


def _looked_up(value: str, environ: Mapping[str, str]) -> str:
    return environ.get(value[1:], "") if value.startswith("$") else value


def _next(tokens: list[bytes], at: int) -> bytes:
    """The next token that is no white space."""
    while (at := at + 1) < len(tokens):
        if not tokens[at].isspace():
            return tokens[at]
    return b""


def _moment(value: Any) -> Any:
    """A time in seconds, milli- or microseconds since 1970 (by its size), as the contract writes one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e17:
        return value
    unit = 1 if value < 1e11 else 1e3 if value < 1e14 else 1e6
    return dt.datetime.fromtimestamp(value / unit, dt.UTC).isoformat()


def _ids_as_text(value: Any) -> Any:
    """Numbers as text, in lists too; anything else as it is."""
    change: Callable[[Any], Any] = lambda v: str(v) if isinstance(v, int) and not isinstance(v, bool) else v  # noqa: E731
    return [change(v) for v in value] if isinstance(value, list) else change(value)
