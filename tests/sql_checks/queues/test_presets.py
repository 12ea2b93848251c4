"""Presets of queues are complete: each notion is given or absent with a reason, and every check can be generated."""

import datetime as dt
from pathlib import Path

import pytest

from gates import catalogue
from gates.contract.contract import contract
from gates.contract.queues import (
    FOLDER,
    NEED,
    NOTIONS,
    VIEWS,
    ProbeOptions,
    Queue,
    QueueOptions,
    QueueSchema,
    presets,
    queue_of,
)
from gates.contract.scope import QUEUE
from gates.decision.policy_file import parse
from gates.errors import ConfigError
from gates.evidence import TargetKind
from sql_checks.export.queue_docs import presets_markdown
from sql_checks.names import unqualified
from sql_checks.rules.queues import bound, notions_of, read_queue_rules, rules_of

NAMES = sorted(presets())
TODAY = dt.date(2026, 1, 1)
FULL = QueueOptions(
    schema="it's Mine",
    tenant="'t'",
    max_run_time_s=5,
    leave_out=("it's", "other"),
    limits={"lag": {"page": 9.5}},
    probe=ProbeOptions("probe", payload={"a": [1, None]}, rate=2),
)


def policy_text(preset: str, options: str = "{}") -> str:
    return f"version: 1\ncontract:\n  preset: {preset}\n  options: {options}\n"


@pytest.mark.parametrize("name", NAMES)
def test_every_notion_is_written_or_absent_with_a_reason(name: str) -> None:
    """Exactly one of both; what is absent is not applicable, and the report says why."""
    preset = presets()[name]
    written, absent = {*preset.notions, *(n for n in preset.either if n in NOTIONS)}, set(Queue(preset).absent())
    assert written | absent | {*VIEWS, "indexes"} == set(NOTIONS)
    assert written & absent == set()
    assert all(why and why[0] != " " and not why.endswith(".") for why in preset.absent.values())
    assert preset.grants
    assert preset.heap


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [QueueOptions(), FULL], ids=["plain", "full"])
def test_every_check_is_written_out_with_schemas(name: str, options: QueueOptions) -> None:
    """For the newest version and for one that has no column more than it must, in any schema, in one statement."""
    queue = Queue(presets()[name], options)
    least = QueueSchema({table: frozenset(columns) for table, columns in queue.tables().items()}, 0)
    written = {rule.query: rule.name for schema in (None, least) for rule in rules_of(queue, schema)}
    assert [name for query, name in written.items() if "{{" in query or unqualified(query)] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_queue_comes_through_a_command_line_unchanged(name: str) -> None:
    """A queue with its options is the same after its way through JSON."""
    for options in (QueueOptions(), FULL):
        queue = Queue(presets()[name], options)
        assert queue_of(queue.to_json()) == queue


@pytest.mark.parametrize("name", NAMES)
def test_what_a_queue_does_not_have_is_not_applicable(name: str) -> None:
    """Checks of absent notions are not required, and the reason is given."""
    specs = catalogue.load()
    policy = parse(policy_text(name), "gate.yaml", Path(), TODAY).policy(specs, TargetKind.PRODUCTION, "", deep=False)
    assert policy.scope.claims == (QUEUE,)
    absent, by_id = Queue(presets()[name]).absent(), {s.id: s for s in specs}
    for rule in read_queue_rules():
        why = policy.scope.leaves_out(by_id[rule.spec.id])
        assert set(filter(None, why.split("; "))) == {absent[n] for n in notions_of(rule) if n in absent}
    assert policy.scope.leaves_out(by_id["queue/proof/worked-off"]) == ""


def test_every_preset_can_be_named_in_a_policy() -> None:
    """The contract lists exactly the presets that have a file."""
    assert {n for n, claims in contract().presets.items() if claims == (QUEUE,)} == set(NAMES)


def test_every_check_of_queues_is_in_the_catalogue_with_its_needs() -> None:
    """Each needs the database and the notions that its query uses, and nothing else."""
    listed = {s.id: s for s in catalogue.load()}
    for rule in read_queue_rules():
        assert set(listed[rule.spec.id].needs) == {"database", *(f"{NEED}{n}" for n in notions_of(rule))}


def test_the_policys_limits_replace_the_presets_and_the_rules() -> None:
    """The policy's limit wins, then the preset's, then the rule's."""
    lag = next(r for r in read_queue_rules() if r.name == "lag")
    preset = presets()["pg-boss"]
    assert [n for _, n in bound(lag, Queue(preset)).limits] == [5.0, 4.0]
    own = bound(lag, Queue(preset, QueueOptions(limits={"lag": {"page": 60.5}})))
    assert [n for _, n in own.limits] == [60.5, 4.0]
    assert "lag_s > 60.5" in own.query


@pytest.mark.parametrize(
    ("preset", "options", "said"),
    [
        ("pg-boss", "{shema: x}", r"gate\.yaml:4:\d+: .*shema.*schema"),
        ("pg-boss", "{prefix: x}", r"gate\.yaml:4:\d+: .*prefix.*pg-boss"),
        ("pgqueuer", "{prefix: 'x;y'}", r"gate\.yaml:4:\d+: .*x;y.*letters, digits"),
        ("pg-boss", "{limits: {lagg: {page: 1}}}", r"gate\.yaml:4:\d+: .*lagg.*'lag'"),
        ("pg-boss", "{limits: {lag: {pages: 1}}}", r"gate\.yaml:4:\d+: .*pages"),
        ("pg-boss", "{probe: {rate: 1}}", r"gate\.yaml:4:\d+: .*'name' is missing"),
        ("pg-boss", "[1]", r"gate\.yaml:4:\d+: .*mapping"),
    ],
)
def test_a_wrong_option_is_an_error_with_its_place(preset: str, options: str, said: str) -> None:
    """File, line and column, what was found, what is allowed, what to do."""
    with pytest.raises(ConfigError, match=said):
        parse(policy_text(preset, options), "gate.yaml", Path(), TODAY).policy(
            catalogue.load(), TargetKind.PRODUCTION, "", deep=False
        )


def test_a_claim_of_a_queue_names_its_preset() -> None:
    """A claim without a preset is an error with its place, which names the presets."""
    text = "version: 1\ncontract:\n  claims: [queue]\n"
    with pytest.raises(ConfigError, match=r"gate\.yaml:3:3: .*without a preset.*pg-boss"):
        parse(text, "gate.yaml", Path(), TODAY)


def test_the_page_of_presets_is_generated() -> None:
    """docs/presets.md says of each preset what is judged, what not and why, and the grants, as the data has it."""
    page = FOLDER.parents[1] / "docs" / "presets.md"
    assert page.read_text(encoding="utf-8") == presets_markdown(), "run: gate lint --write"


@pytest.mark.parametrize("name", NAMES)
def test_the_load_applies_where_the_policy_gives_a_job_and_a_rate(name: str) -> None:
    """Otherwise the gate only reads; `once` needs a system that counts successes."""
    specs = {s.id: s for s in catalogue.load()}
    scope = parse(policy_text(name), "gate.yaml", Path(), TODAY).scope
    load = ("queue/load/worked-off", "queue/load/p95", "queue/load/once")
    assert all("gives no job and rate" in scope.leaves_out(specs[check]) for check in load)
    way = presets()[name].probe
    if way is not None:
        rated = parse(policy_text(name, "{probe: {name: x, rate: 1}}"), "gate.yaml", Path(), TODAY).scope
        assert [rated.leaves_out(specs[check]) == "" for check in load] == [True, True, way.counts]
