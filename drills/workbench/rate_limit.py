"""The rate limit of a drill tenant: fill its bucket, read its rows, move them into the past."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from drills.workbench.database import query
from drills.workbench.scene import FOURTH, Scene
from gates.deployment.dialect.current import current
from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.requests import Answer, Request
from gates.deployment.sql.database import Connection, execute
from gates.text import foreign


def admitted() -> int:
    """How many calls the limit admits within its window."""
    return current().limit("calls")


def client_address(text: str) -> str:
    """The canonical form of an address; an IPv4-mapped one as IPv4. Empty where it is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return ""
    return str(getattr(address, "ipv4_mapped", None) or address)


def client_addresses(connection: Connection, company: str, named: Sequence[str] = ()) -> set[str]:
    """The addresses in a tenant's rate-limit rows, without those that the client itself named in a header. A row by
    something else than an address counts for none.
    """
    found = set()
    for row in execute(connection, "select key from public.edge_rate_limits where key like %s", f"replay:{company}:%"):
        text = str(row["key"]).split(":", 2)[2]
        address = client_address(text)
        if address and not any(text in value or address in value for value in named):
            found.add(address)
    return found


@dataclass
class Limit(Scene):
    """The rate limit of one check's tenants, through both doors."""

    def request(self, company: str, label: str = "", **fields: Any) -> Request:
        """A replay of at most one item."""
        return self.replay_request(company, label, **{"max": 1, **fields})

    def passes(self, request: Request, status: int = 200, door: HttpDoor | None = None) -> Answer:
        """The claim: the limit does not refuse this request. `rate_limited` fails it; another 429 is a busy target."""
        answer = (door or self.http).send(request)
        return self.seen.expect(request, answer, status, busy=answer.code == "rate_limited")

    def admit(self, company: str, label: str = "admitted", *, control: bool = False, **fields: Any) -> Answer:
        """Send one request that must be admitted."""
        request = self.request(company, label, **fields)
        answer = self.http.send(request)
        # nobody else uses this tenant, so `rate_limited` does not mean a busy target
        self.seen.expect(request, answer, 200, control=control, busy=answer.code == "rate_limited")
        return self.carried_out(answer)

    def carried_out(self, answer: Answer) -> Answer:
        """An answer that says what a replay says; another 200 (a login page) proves nothing."""
        known = answer.json().get("status") in {"started", "completed", "dry_run"}
        self.seen.require(known, f"a 200 without the status of a replay: {foreign.text(answer.body, 80)!r}")
        return answer

    def fill(self, company: str, count: int | None = None) -> None:
        """Send so many requests that are admitted: the controls of what follows."""
        for number in range(1, (admitted() if count is None else count) + 1):
            self.admit(company, f"call {number}", control=True)

    def limited(
        self, request: Request, door: HttpDoor | None = None, *, answer: Answer | None = None, control: bool = False
    ) -> Answer:
        """Send one request that must be refused by the rate limit; answer: what it was answered, if it was sent."""
        answer = answer or (door or self.http).send(request)
        if answer.status == 200:
            self.at_one_address(request)
        return self.seen.expect(request, answer, 429, "rate_limited", control=control, by=FOURTH)

    def at_one_address(self, request: Request) -> None:
        """End the check as unknown where calls of ours come to the target from several addresses (of a proxy that it
        does not trust, or of ours): each has a limit of its own.
        """
        company = str(json.loads(request.body)["company_id"]).lower()
        found = client_addresses(self.db, company, [value for _, value in request.headers])
        self.seen.require(
            len(found) < 2, f"our calls come to the target from {len(found)} addresses ({', '.join(sorted(found))})"
        )

    def uncounted(self, request: Request, statuses: tuple[int, ...]) -> Answer:
        """Send one request that an earlier step must refuse. If the limit refuses it, it was counted: a failure."""
        answer = self.http.send(request)
        limited = answer.status == 429 and answer.code == "rate_limited"
        return self.seen.expect(request, answer, statuses, control=not limited, busy=limited)

    def exhaust(self, company: str) -> None:
        """Fill the bucket and see the next call refused; where that is not so, the check is unknown."""
        self.fill(company)
        self.limited(self.request(company, "one call more"), control=True)

    def use_up(self, company: str) -> None:
        """Call until the limit refuses, be it of another size; the first call of a new company it must not refuse."""
        for number in range(1, admitted() + 2):
            request = self.request(company, f"call {number}")
            answer = self.http.send(request)
            limited = answer.status == 429 and answer.code == "rate_limited"
            if limited and number > 1:
                return
            first = "the first call of a tenant that was just created is refused with 429 rate_limited"
            assert not limited, f"{first}: what another tenant, or nobody, did counts for it"
            self.seen.expect(request, answer, 200, control=True, by=FOURTH if number > admitted() else "")
            self.carried_out(answer)
        self.at_one_address(request)
        self.seen.unmet(f"call {admitted() + 1} is admitted: a limit that is not used up shows nothing", by=FOURTH)

    def buckets(self, company: str) -> list[dict[str, Any]]:
        """The tenant's rate-limit rows: key, hits, count, window_start."""
        read = "select key, hits, count, window_start from public.edge_rate_limits where key like %s order by key"
        return self.rows(read, f"replay:{company}:%")

    def untrusted(self, company: str) -> None:
        """End the check as unknown where the target believes what this machine says about addresses."""
        for row in self.buckets(company):
            address = str(row["key"]).split(":", 2)[2]
            self.seen.require(
                not self.trusts(address),
                f"{address} is among TRUSTED_PROXIES: it may name any client address. Run the gate from an address that"
                " is not",
            )

    def trusts(self, address: str) -> bool:
        """Whether TRUSTED_PROXIES contains this address; False for what is not an address."""
        known, named = client_address(address), self.target.trusted_proxies
        return bool(known) and any(ip_address(known) in ip_network(p, strict=False) for p in named)

    @property
    def has_rows(self) -> bool:
        """Whether the deployment has the rows of a rate limit."""
        return self.claims("rate-limit") and "edge_rate_limits" not in current().lacking

    def hits(self, company: str) -> int:
        """How many admitted requests the tenant's rows hold."""
        return sum(len(r["hits"]) for r in self.buckets(company))

    def back_date(self, company: str, seconds: float) -> None:
        """Move the tenant's admitted requests so far into the past."""
        self.rows(query("back_date"), seconds, f"replay:{company}:%")

    def age_s(self, company: str) -> float:
        """The age in seconds of the tenant's oldest admitted request, by the database clock."""
        return float(self.value(query("oldest_hit"), f"replay:{company}:%") or 0)

    def now_s(self) -> float:
        """The time by the database clock, in Unix seconds."""
        return float(self.value("select extract(epoch from clock_timestamp())::float8"))

    @contextmanager
    def locked_rows(self, company: str) -> Iterator[Connection]:
        """A transaction that holds the tenant's rate-limit rows: who counts a call of the tenant waits."""
        with self.transaction() as holder:
            execute(holder, "select from public.edge_rate_limits where key like %s for update", f"replay:{company}:%")
            yield holder

    def sent_while_locked(self, company: str, request: Request, held_s: float) -> tuple[Answer, bool]:
        """The answer to a request that comes while the tenant's rows are locked, at most for so long, and whether it
        came before they were released. Without an answer the check is unknown.
        """
        with self.locked_rows(company):
            running = self.in_background(request)
            early = bool(wait([running], held_s).done)
        try:
            return running.result(20), early
        except (NoAnswer, TimeoutError):
            self.seen.unmet("no answer to the call whose row was locked")
