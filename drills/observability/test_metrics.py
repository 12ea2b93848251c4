"""Observability: the metrics are there, count what happened exactly, and stay small."""

import re
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from math import isnan
from operator import itemgetter

import pytest

from drills.workbench.checks import SIGNED, SQL
from drills.workbench.credentials import REPLAY
from drills.workbench.scene import Scene, new_key
from gates.checks.recorder import Observer, check
from gates.deployment.dialect.current import current
from gates.deployment.http.client import HttpDoor
from gates.deployment.http.metrics import OPENMETRICS, Scrape, broken_histograms, of_each_instance, parse_metrics
from gates.deployment.requests import Answer, Request, replay_fields, token_post
from gates.deployment.target import Target
from gates.deployment.tenants.tenants import REPLAY_FLAG
from gates.evidence import Severity, TargetKind, Where

drill = partial(check, severity=Severity.WARN)

SERIES = ("replay_requests_total", "outbox_lag_seconds", "outbox_pending", "dlq_items", "agent_tasks_total")
FORMATS = ("text/plain", OPENMETRICS)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
OF_A_PROCESS = re.compile("instance|process|pid|worker|host|pod|container|node|machine|k8s|cloud", re.IGNORECASE)
"""In the name of a label: it says where the series comes from. OpenTelemetry has `service_instance_id` and
`k8s_cluster_uid`, UUIDs.
"""
MADE_UP = "made-up-by-a-caller"
MOST_SERIES = 2000
REPLAYS = "replay_requests_total"
SOME, SPREAD_SCRAPES = 6, 24
"""Enough to meet each of four instances that are taken at random but once in 250 times."""
WAITS = "processed_at is null and dead_at is null"
WAITING = f"select id from public.event_outbox where company_id <> %s and {WAITS} order by id"
OTHERS_S = 5.0
"""Whoever calls so often that no three tries are free of it calls as often again within this."""
GAUGES_S = 20.0
"""How old a gauge may be: Prometheus reads it every 15 s, so a service need not count large tables more often."""
OLDEST_S = f"select extract(epoch from clock_timestamp() - min(inserted_at)) from public.event_outbox where {WAITS}"
CLAIMED_S, OLD_S = 180, 172_800  # in production nobody is to be called up by a lag of days
CLAIM = """update public.event_outbox set inserted_at = now() - make_interval(secs => %s), claimed_until = %s,
replay_run_id = %s where company_id = %s"""
SCRAPE = Request("GET", "/metrics", label="GET /metrics")
SeriesKey = tuple[str, tuple[tuple[str, str], ...]]
Series = Mapping[SeriesKey, float]


@pytest.fixture(scope="session")
def spread(target: Target) -> bool:
    """Whether scrapes, over one connection or each over its own, differ as over several instances: nothing but a replay
    moves these counts.
    """

    def counts(doors: Iterable[HttpDoor]) -> list[float]:
        return [_replays(_read(door.send(SCRAPE)).series()) for door in doors]

    with ExitStack() as opened:
        own = [opened.enter_context(HttpDoor(target.base_url)) for _ in range(SOME)]
        looks = (counts(own[:1] * SOME), counts(own))
    return any(values != sorted(values) for values in looks)


def _scrape(door: HttpDoor, seen: Observer) -> Scrape:
    return _read(seen.expect(SCRAPE, door.send(SCRAPE), 200))


def _read(answer: Answer) -> Scrape:
    return parse_metrics(answer.body, answer.header("content-type") or "")


@drill("drill/observability/series-are-there", where=Where.READ_ONLY, covers=("O05",))
def test_series_are_there(http: HttpDoor, seen: Observer) -> None:
    """/metrics has every series that the contract names, states its format, and can be parsed to the last line.

    An alert on a renamed series never fires again; Prometheus rejects the whole text if its type is wrong or one line
    does not fit it.
    """
    answer = seen.expect(SCRAPE, http.send(SCRAPE), 200, control=True)
    kind = answer.header("content-type") or "none"
    assert kind.lower().startswith(FORMATS), f"the content type is {kind!r}; allowed: {' and '.join(FORMATS)}"
    scrape = _read(answer)
    for name in sorted(set(SERIES) - set(current().lacking)):
        assert scrape.total(name) is not None, f"/metrics has no {name}"
        seen.count()
    odd = scrape.malformed
    assert not odd, f"/metrics has {len(odd)} lines that are no sample: {odd[0]!r}"


@drill("drill/observability/no-tenants-in-labels", where=Where.READ_ONLY, covers=("O09",))
def test_no_tenants_in_labels(http: HttpDoor, seen: Observer) -> None:
    """No label holds a tenant's, a run's or an event's id, or a path that a caller made up, and there are fewer than
    2000 series.

    A label with an id grows without end, and shows customers' names to anyone who may read the metrics.
    """
    with HttpDoor(http.base_url) as door:  # one instance of several
        for path in ("", "/dlq-replay", "/events"):
            door.send(Request("GET", f"{path}/{MADE_UP}"))
        scrape = _scrape(door, seen)
    made_up = [s for s in scrape.samples if any(MADE_UP in v for _, v in s.labels)]
    assert not made_up, f"{made_up[0].name} has the caller's path for a label: {dict(made_up[0].labels)}"
    named = [s for s in scrape.samples if any(UUID.search(v) and not OF_A_PROCESS.search(n) for n, v in s.labels)]
    assert not named, f"{named[0].name} has an id for a label: {dict(named[0].labels)}" if named else ""
    seen.value(len(scrape.samples), MOST_SERIES, "series")
    assert len(scrape.samples) < MOST_SERIES, f"/metrics has {len(scrape.samples)} series; allowed: {MOST_SERIES}"
    seen.require(scrape.samples, "/metrics has no samples")
    seen.control(f"{len(scrape.samples)} series were read")


@drill("drill/observability/histograms-are-sound", where=Where.READ_ONLY, covers=("O10",))
def test_histograms_are_sound(http: HttpDoor, seen: Observer) -> None:
    """In every histogram the buckets rise to the count, no counter is negative, and the contract's series are numbers.

    A percentile out of a broken histogram is a number without a meaning. Another series may be NaN: a library's summary
    is, as long as it has nothing to sum up.
    """
    scrape = _scrape(http, seen)
    broken = broken_histograms(scrape.samples)
    assert not broken, f"{len(broken)} histograms are broken, e.g. {broken[0] if broken else ''}"
    ours = {s for name in SERIES for s in scrape.named(name)}
    wrong = [s for s in scrape.samples if (s.name.endswith("_total") and s.value < 0) or (s in ours and isnan(s.value))]
    assert not wrong, f"{wrong[0].name} is {wrong[0].value}; allowed: a number, a count from 0 on" if wrong else ""
    seen.require(scrape.samples, "/metrics has no samples")
    seen.control(f"{len(scrape.samples)} series were read")


def _counted(door: HttpDoor, seen: Observer, *, spread: bool) -> Series:
    """Every series as it stands, those of several processes as one: of the instance behind the connection, or summed
    over all that answer through it.
    """
    looks = (_scrape(door, seen) for _ in range(SPREAD_SCRAPES if spread else 1))
    sums: dict[SeriesKey, float] = defaultdict(float)
    for scrape in of_each_instance(looks, REPLAYS):
        for (name, labels), count in scrape.series().items():
            sums[name, tuple(one for one in labels if not OF_A_PROCESS.search(one[0]))] += count
    return sums


@drill("drill/observability/replays-are-counted", needs=SQL, after=SIGNED, covers=("O06", "O10"), phase="last")
def test_replays_are_counted(scene: Scene, spread: bool) -> None:
    """Three replay requests, one by token, one that moves items, and its duplicate, raise replay_requests_total by
    three; where others call all the time, by three or more.

    A counter that misses requests, or counts them twice, makes every rate computed from it wrong.
    """

    def act(door: HttpDoor) -> None:
        company, key = scene.company(items=2), new_key()
        for fields in ({"dry_run": True}, {"idempotency_key": key}, {"idempotency_key": key}):
            request = scene.replay_request(company, **fields)
            if "dry_run" in fields and (token := scene.token_of(company)):
                request = token_post(REPLAY, replay_fields(company, **fields), token, "a dry run by token")
            scene.seen.expect(request, door.send(request), 200, control=True)

    grown: list[float] = []
    began = time.monotonic()
    while len(grown) < 3 and 3.0 not in grown:
        with HttpDoor(scene.target.base_url) as door:  # one connection: one instance of several
            before = _counted(door, scene.seen, spread=spread)
            act(door)
            # what counts from the last scrape on has forgotten them at the second
            after = [_replays(_counted(door, scene.seen, spread=spread)) for _ in range(2)]
        grown.append(min(after) - _replays(before))
    took_s = time.monotonic() - began
    scene.seen.value(grown[-1], 3, "requests")
    # in all tries together: a caller now and then, as the gate's own watchdog, explains none of three
    others = min(grown) > 3 and _others_call(scene, sum(grown) - 3 * len(grown), took_s, spread=spread)
    # instances with equal counts cannot be told apart; a counter that stands still is seen all the same
    told = 3.0 in grown or others or not spread or not any(grown)
    scene.seen.require(told, f"several instances answer: they grew by {grown}")
    assert 3.0 in grown or others, (
        f"three replay requests raised replay_requests_total by {grown} (three tries, two scrapes each)"
    )


def _others_call(scene: Scene, more: float, within_s: float, *, spread: bool) -> bool:
    """Whether the counter grows by as much in as short a time while the drill sends nothing."""
    looks: list[tuple[float, float]] = []

    def grows(door: HttpDoor) -> bool:
        looks.append((time.monotonic(), _replays(_counted(door, scene.seen, spread=spread))))
        now, count = looks[-1]
        return any(count - before >= more for at, before in looks if now - at <= within_s)

    with HttpDoor(scene.target.base_url) as door:
        return scene.until_true(partial(grows, door), within_s=OTHERS_S)


@drill("drill/observability/refusals-are-counted", needs=SQL, after=SIGNED, covers=("O07",), phase="last")
def test_refusals_are_counted(scene: Scene, spread: bool) -> None:
    """Three refused replays move a counter that three admitted ones do not move, and make no series each.

    Errors that no counter shows are found by customers; a series for each fills the monitoring's memory.
    """
    admitted, known, fewest = False, set[SeriesKey](), ("", MOST_SERIES)
    for look in range(3):  # a balancer may change the instance at any time, to one with equal counts, too
        by_good, by_bad, new = _moved_by(scene, spread=spread or look > 0)
        admitted |= bool(by_good)
        made = Counter(name for name, _ in new - known).most_common(1) or [("", 0)]
        known, fewest = known | new, min(fewest, made[0], key=itemgetter(1))
        if by_good and by_bad - by_good and made[0][1] < 3:
            break
    else:
        assert fewest[1] < 3, f"three refusals alike made {fewest[1]} new series of {fewest[0]}; allowed: 2"
        scene.seen.require(admitted, "admitted requests move no counter: drill/observability/replays-are-counted")
        raise AssertionError("three refused replays moved no counter that three admitted ones did not move")
    scene.seen.count(3)


def _moved_by(scene: Scene, *, spread: bool) -> tuple[set[SeriesKey], set[SeriesKey], set[SeriesKey]]:
    """The counters that three admitted replays move, those that three refused ones do, and those that are new."""
    company, refused = scene.company(), scene.company()
    scene.set_flag(refused, REPLAY_FLAG, enabled=False)
    with HttpDoor(scene.target.base_url) as door:
        looks = [_counted(door, scene.seen, spread=spread)]
        for tenant, status, code in ((company, 200, None), (refused, 403, "feature_disabled")):
            for _ in range(3):
                request = scene.replay_request(tenant, dry_run=True)
                scene.seen.expect(request, door.send(request), status, code, control=status == 200)
            looks.append(_counted(door, scene.seen, spread=spread))
    start, middle, end = looks
    counters = {k for k in end if k[0].endswith("_total")}
    by_good = {k for k in counters if middle.get(k, 0.0) - start.get(k, 0.0) >= 3}
    return by_good, {k for k in counters if end[k] - middle.get(k, 0.0) >= 3}, counters - middle.keys()


def _sum(family: str, series: Series) -> float:
    return sum(count for (name, _), count in series.items() if name == family)


_tasks, _replays = partial(_sum, "agent_tasks_total"), partial(_sum, REPLAYS)


@drill("drill/observability/dlq-depth-is-the-tables", needs=SQL, after=SIGNED, covers=("L14",), phase="last")
def test_dlq_depth_is_the_tables(scene: Scene) -> None:
    """Seven new dead letters raise dlq_items by seven, though two are old, one is put off and one has no retry left.

    The gate and the operator read the depth here; a number that drifts from the table hides a growing queue.
    """
    scene.expect(SCRAPE, 200, control=True)
    company = scene.company()
    others = """select count(*), count(*) filter (where status = 'pending') as pending, max(created_at) as newest
    from public.dead_letter_queue where company_id <> %s"""
    firsts, shown, grown = list[float](), False, 0.0

    def probe() -> bool:
        nonlocal grown
        grown = (now := _scrape(scene.http, scene.seen).total("dlq_items") or 0.0) - firsts[-1]
        return any(now - first == 7 * letters for letters, first in enumerate(reversed(firsts), 1))

    while not shown and len(firsts) < 2:  # the metric may lag behind the table: the first number may be out of date
        found = scene.one(others, company)
        before = _scrape(scene.http, scene.seen).total("dlq_items")
        scene.seen.require(before is not None, "/metrics has no dlq_items", by="drill/observability/series-are-there")
        firsts.append(before or 0.0)
        scene.add_seven(company)
        shown = scene.until_true(probe, within_s=GAUGES_S)
    scene.seen.value(grown, 7, "items")
    is_quiet = shown or scene.one(others, company) == found
    scene.seen.require(is_quiet, f"dlq_items grew by {grown:g}, but other tenants' dead letters changed meanwhile")
    assert shown, f"seven new dead letters changed dlq_items by {grown:g}"


@drill("drill/observability/waiting-events-show", needs=SQL, after=SIGNED, covers=("L14", "K04"), phase="last")
def test_waiting_events_show(scene: Scene) -> None:
    """Seven events in back-off, written a minute ago, and a new one raise outbox_pending by eight and show as lag,
    though their tenant has a row of no pause. They still do when they are days old, of a replay or claimed by a relay,
    and no longer when they are dead.

    Failing events are those an operator must see; a lag without them is zero while nothing is delivered.
    """
    company = scene.company()
    if scene.claims("pause"):
        scene.pause(company, on=False)
    before = _scrape(scene.http, scene.seen)
    lacking = [name for name in ("outbox_pending", "outbox_lag_seconds") if before.total(name) is None]
    scene.seen.require(not lacking, f"/metrics has no {', '.join(lacking)}", by="drill/observability/series-are-there")
    scene.seen.control("both series were read before")
    others = scene.rows(WAITING, company)
    now = scene.one("select now() - interval '1 minute' as old, now() + interval '10 minutes' as due")
    seen: list[tuple[float, float]] = []
    pending, shown = before.total("outbox_pending") or 0.0, False

    def probe() -> bool:
        scrape = _scrape(scene.http, scene.seen)
        grown = (scrape.total("outbox_pending") or 0.0) - pending
        seen.append((grown, scrape.highest("outbox_lag_seconds")))
        return grown >= 8 and seen[-1][1] >= least_s

    def lag_s() -> float:
        probe()
        return seen[-1][1]

    ended = {"claimed_until": now["old"]} if current().has("event_outbox", "claimed_until") else {}  # a dead relay's
    for written in (8, 16):  # the metrics may lag behind, so the first numbers may include rows that are gone
        scene.write_outbox(company, 7, inserted_at=now["old"], next_attempt_at=now["due"], attempts=2)
        scene.write_outbox(company, 1, next_attempt_at=now["due"], attempts=1, **ended)
        # the lag may be the oldest's, a percentile, or the mean with what else waits; the youngest's it is not
        least_s = 59 * written * 7 / 8 / (written + len(others))
        if shown := scene.until_true(probe, within_s=GAUGES_S):
            break
        pending += seen[-1][0]
    scene.seen.value([round(n, 1) for n in seen[-1]], [8, 60], "events, s")
    quiet = scene.count("event_outbox", company, "processed_at is null")
    scene.seen.require(quiet == written, "the events did not wait: drill/outbox/not-before-it-is-due")
    scene.seen.require(shown or others == scene.rows(WAITING, company), "other tenants' events changed meanwhile")
    assert seen[-1][0] >= 8, f"eight events that back off changed outbox_pending by {seen[-1][0]:g}"
    most_s, said = _most_s(scene), f"outbox_lag_seconds is {seen[-1][1]:g}"
    assert seen[-1][1] >= least_s, f"{said} with seven of eight events that back off for a minute"
    assert seen[-1][1] <= most_s, f"{said}; allowed with what waits: {most_s:.0f}"
    if current().has("event_outbox", "claimed_until"):
        least_s *= (age_s := CLAIMED_S if scene.target.kind is TargetKind.PRODUCTION else OLD_S) / 60
        scene.rows(CLAIM, age_s, now["due"], scene.run(company, max=1)["replay_run_id"], company)  # an ended run
        shown = scene.until_true(lambda: lag_s() >= least_s, within_s=2 * GAUGES_S)  # one look more, as above
        scene.seen.require(shown or others == scene.rows(WAITING, company), "other tenants' events changed meanwhile")
        assert shown, f"outbox_lag_seconds is {seen[-1][1]:g} with replayed events claimed that are {age_s} s old"
    scene.give_up(company)
    fell = scene.until_true(lambda: lag_s() <= _most_s(scene), within_s=2 * GAUGES_S)
    assert fell, f"outbox_lag_seconds is {seen[-1][1]:g} when they are dead; allowed: {_most_s(scene):.0f}"


def _most_s(scene: Scene) -> float:
    """The most that the lag may be: of the oldest event that waits, with room for a gauge of a moment ago."""
    return 2 * float(scene.value(OLDEST_S) or 0) + 10


@drill(
    "drill/observability/effects-are-counted",
    needs=SQL,
    after=("drill/outbox/delivered-once",),
    covers=("O06",),
    phase="last",
)
def test_effects_are_counted(scene: Scene, spread: bool) -> None:
    """Three events that have their effect raise agent_tasks_total by three or more.

    The agents' success rate is computed from this counter; if it stands still, the rate has no samples.
    """
    company = scene.company()
    with HttpDoor(scene.target.base_url) as door:
        grown = _tasks_grow(scene, door, company, spread=spread)
        if grown[-1] < 3:  # the first number may be out of date and include tasks of removed tenants
            grown = _tasks_grow(scene, door, company, spread=spread)
    scene.seen.value(grown[-1], 3, "tasks")
    scene.seen.require(grown[-1] >= 3 or min(grown) >= 0, "tasks of other tenants were deleted meanwhile")
    assert grown[-1] >= 3, f"three effects raised agent_tasks_total by {grown[-1]:g}"


def _tasks_grow(scene: Scene, door: HttpDoor, company: str, *, spread: bool) -> list[float]:
    """By how much the tasks that are shown grew over three events, at each look until it is three."""
    grown: list[float] = []
    before = _tasks(_counted(door, scene.seen, spread=spread))
    scene.delivered([str(scene.emit(company, control=True)["event_id"]) for _ in range(3)])

    def probe() -> bool:
        grown.append(_tasks(_counted(door, scene.seen, spread=spread)) - before)
        return grown[-1] >= 3

    scene.until_true(probe, within_s=GAUGES_S)
    return grown


@drill("drill/observability/request-id-in-the-trail", needs=SQL, after=SIGNED, covers=("O03",))
def test_request_id_in_the_trail(scene: Scene) -> None:
    """Each answer has an X-Request-Id of its own, and the audit row of the request has the same, also where requests of
    several tenants come at the same moment.

    A customer's complaint comes with a request id; without it in the trail nobody finds what happened.
    """
    company = scene.company()
    request = scene.replay_request(company, dry_run=True)
    chosen = request.adding_header("X-Request-Id", str(uuid.uuid4()))
    ids = [scene.expect(one, 200, control=True).request_ids for one in (request, chosen)]
    assert all(ids), "an answer has no X-Request-Id"
    assert not {*ids[0]} & {*ids[1]}, f"two answers have the same X-Request-Id: {ids}"
    if scene.claims("audit"):
        found = [str(r["request_id"]) for r in scene.audited(company)]
        of = [[one in told for told in ids] for one in found]
        assert of == [[True, False], [False, True]], f"the audit rows have the request ids {found}; the answers: {ids}"
        crowd = [scene.company(f"crowd {n}") for n in range(6)]
        answers = scene.burst([scene.replay_request(one, dry_run=True) for one in crowd])
        for one, answer in zip(crowd, answers, strict=True):
            found, due = [r["request_id"] for r in scene.audited(one)], answer.request_ids
            assert [i in due for i in found] == [True], f"of six at once one was answered as {due}, audited as {found}"
    others = [Request("GET", f"/no-such-route-{uuid.uuid4()}", label="GET of no route")]
    others += [scene.event_request(company)] if current().takes_events else []
    answers = [scene.http.send(one) for one in others]
    if current().shows_runs:
        answers.append(scene.get_run(str(scene.run(company, max=1)["replay_run_id"]), company)[1])
    for answer in answers:
        assert answer.request_ids, f"an answer {answer.status} has no X-Request-Id"
    scene.seen.count(2)
