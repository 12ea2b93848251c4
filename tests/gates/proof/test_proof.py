"""What follows from the cells and trials: validity, exit codes, measures, reports, the citation of later runs."""

import json
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gates.decision.rules import Policy
from gates.evidence import CheckSpec, Severity, TargetKind, Where
from gates.proof import last
from gates.proof.fault import Kind, ListedFault
from gates.proof.judgement import Cell, Status
from gates.proof.measures import Canary, Cost, Minimal, Worth, canary, smallest_set, worth
from gates.proof.proof import Proof
from gates.proof.prove import applicable
from gates.proof.reports import stryker, summary
from gates.proof.reports.page import page
from gates.proof.request import ProofRequest, chosen
from gates.proof.trial import ProofPart, Trial
from gates.reports.citation import cited, source_digest
from gates.verdict import Decision

SCHEMA = "mutation-testing-report-schema"
HOSTILE = "<script>alert(1)</script> | `x`"
SOURCE = "# faults\n\n\ndef key_ignored(settings):\n    return settings\n"

NOOP = ListedFault("noop/nothing", "Nothing.", Kind.NONE, Decision.PROMOTE, production=True)
KEY = ListedFault(
    "idempotency/key-ignored", HOSTILE, Kind.SERVICE, Decision.ROLLBACK, "faults.idempotency:key_ignored",
    production=True, checks=("drill/a", "drill/b"), names=("key",),
)  # fmt: skip
RLS = ListedFault(
    "rls/off", "RLS is off.", Kind.SQL, Decision.ROLLBACK, sql="alter table x\n  disable row level security",
    checks=("sql/rls",), names=("x",),
)  # fmt: skip
CHECKS = ("drill/a", "drill/b", "drill/idle", "sql/rls")
SURVIVED = Cell(NOOP, Status.SURVIVED, "the gate promoted", decision="promote", seconds=30)
KILLED = Cell(
    KEY, Status.KILLED, "drill/a: two effects", ("drill/a", "drill/b"), ("drill/a", "drill/b"), "rollback", 31,
    first="drill/b",
)  # fmt: skip
SINGLE = Cell(RLS, Status.KILLED, "sql/rls: x", ("sql/rls",), ("sql/rls", "drill/c"), "rollback", 29, first="drill/c")
GOOD = Trial(ProofPart.HEALTHY, "plain", "as it is", ("promote", "hold"), "promote", ok=True, reason="all passed")
PROOF = Proof(
    "2025-01-13T13:00:00.000+00:00", "sha256:1", "staging", "0.1.0",
    (SURVIVED, KILLED, SINGLE), trials=(GOOD,), costs={"drill/a": Cost(2.0, 5), "drill/b": Cost(1.0, 3)},
    catalogue=tuple(CheckSpec(c, "", "", Severity.PAGE, Where.READ_ONLY) for c in CHECKS), whole=True, source="code",
    seconds=100.0,
)  # fmt: skip


def with_cells(*cells: Cell) -> Proof:
    return replace(PROOF, cells=cells)


def with_trial(suite: ProofPart, decision: str) -> Proof:
    return replace(PROOF, trials=(replace(GOOD, suite=suite, decision=decision, ok=False),))


@pytest.mark.parametrize(
    ("proof", "code"),
    [
        (PROOF, 0),
        (with_cells(SURVIVED, replace(KILLED, status=Status.SURVIVED)), 10),
        (with_cells(SURVIVED, replace(KILLED, status=Status.KILLED_COLLATERAL)), 10),
        (with_cells(SURVIVED, replace(KILLED, status=Status.HARNESS_ERROR)), 10),
        (with_cells(KILLED), 20),
        (replace(PROOF, changed=True), 20),
        (with_cells(replace(SURVIVED, status=Status.INVALID_BASELINE), KILLED), 20),
        (replace(PROOF, pending=("x/y",)), 10),
        (replace(PROOF, unpassed_nowhere=("drill/a",)), 10),
        (with_trial(ProofPart.HEALTHY, "rollback"), 20),
        (with_trial(ProofPart.HEALTHY, ""), 10),
        (with_trial(ProofPart.DEGENERATE, "promote"), 20),
        (with_trial(ProofPart.SELF, "promote"), 20),
        (with_trial(ProofPart.SELF, "rollback"), 10),
        (replace(PROOF, cells=(), trials=(GOOD,)), 0),
    ],
)
def test_the_exit_code_says_how_bad_it_is(proof: Proof, code: int) -> None:
    """0 if all is as declared; 20 for harm or an invalid matrix; otherwise 10."""
    assert proof.exit_code == code


def test_a_proof_counts_and_lists_what_is_weak() -> None:
    """It lists idle checks, faults with a single killer, and the bound that the healthy runs give."""
    assert (len(PROOF.faults), PROOF.killed) == (2, 2)
    assert PROOF.idle == PROOF.undeclared == ("drill/idle",)
    assert PROOF.single == (SINGLE,)
    assert (
        "of the faults that the whole gate saw alone (2): another cause was named first: rls/off (drill/c)"
        in summary.lines(PROOF)
    )
    assert "of the faults that the whole gate saw alone (1): the check that killed it was named first" in summary.lines(
        with_cells(SURVIVED, KILLED)
    )
    assert PROOF.bound == "under 100 %"
    assert with_trial(ProofPart.HEALTHY, "rollback").bound == ""
    assert PROOF.minimal == Minimal(("drill/b",), 1.0, 3, exact=True, faults=1), "production faults only, the cheaper"


@pytest.mark.parametrize(
    ("killers", "checks"),
    [
        ({}, ()),
        ({"f": ("a",)}, ("a",)),
        ({"f": ("a", "b"), "g": ("b", "c"), "h": ("c", "a")}, ("a", "c")),
        ({"f": ("a",), "g": ("a", "b"), "h": ("b", "c")}, ("a", "c")),
        ({"f": ("x", "a"), "g": ("x", "b"), "h": ("y", "a"), "i": ("y", "b")}, ("a", "b")),
    ],
)
def test_smallest_set_is_smallest_and_cheapest(killers: dict[str, tuple[str, ...]], checks: tuple[str, ...]) -> None:
    """The set is the cheapest of the smallest; a greedy choice alone would miss it."""
    costs = {"a": Cost(1), "b": Cost(2), "c": Cost(1.5), "x": Cost(9), "y": Cost(9)}
    found = smallest_set(killers, costs)
    assert (found.checks, found.exact) == (checks, True)


def request(**more: Any) -> ProofRequest:
    return ProofRequest(Path("x"), **{"policy": Policy(), **more})


def test_the_noop_comes_along_with_any_fault() -> None:
    """The no-op is chosen with any fault; in production only faults that can occur there are."""
    faults = (KEY, RLS, NOOP)
    assert chosen(faults, request(only=("rls/*",))) == (NOOP, RLS)
    assert chosen(faults, request(only=("healthy/*",))) == ()
    declared = replace(RLS, checks=("drill/audit/",))
    specs = (CheckSpec("drill/audit/row", "", "", Severity.PAGE, Where.STAGING),)
    of_the_check = request(only=("drill/audit/row",), policy=Policy(specs))
    assert chosen((KEY, declared), of_the_check) == (replace(declared, decision=Decision.ROLLBACK),)
    assert chosen(faults, request(kind=TargetKind.PRODUCTION)) == (NOOP, KEY)
    many = [replace(RLS, id=f"rls/{n}") for n in range(7)]
    assert [f.id for f in chosen([*many, NOOP], request(sample=3))] == ["noop/nothing", "rls/0", "rls/2", "rls/4"]
    assert len(chosen(many, request(sample=9))) == 7
    assert chosen([*many, NOOP], request(sample=3, seed="a")) != chosen([*many, NOOP], request(sample=3, seed="b"))
    with_check = request(
        short=True, policy=Policy(catalogue=(CheckSpec("sql/rls", "", "", Severity.PAGE, Where.READ_ONLY),))
    )
    assert chosen(faults, with_check) == (NOOP, RLS), "what the short way cannot show is not drawn"
    assert applicable((), TargetKind.STAGING) == ()


def matrix() -> dict[str, Any]:
    waiting = replace(RLS, id="rls/forced", sql="", kind=Kind.PROCESS, event="stop-worker")
    bad = replace(SINGLE, fault=replace(RLS, id="rls/2"), status=Status.MASKED, killers=())
    proof = with_cells(SURVIVED, KILLED, SINGLE, bad)
    found: dict[str, Any] = json.loads(json.dumps(stryker.matrix(proof, [waiting], lambda _path: SOURCE)))
    return found


def test_the_matrix_maps_cells_to_mutants() -> None:
    """Killed cells name their killers, others survived, the no-op is ignored, what was not examined is pending."""
    mutants = {m["id"]: m for f in matrix()["files"].values() for m in f["mutants"]}
    assert {k: m["status"] for k, m in mutants.items()} == {
        "noop/nothing": "Ignored",
        "idempotency/key-ignored": "Killed",
        "rls/off": "Killed",
        "rls/2": "Survived",
        "rls/forced": "Pending",
    }
    assert mutants["idempotency/key-ignored"]["killedBy"] == ["drill/a", "drill/b"]
    assert mutants["idempotency/key-ignored"]["location"]["start"] == {"line": 4, "column": 1}
    assert mutants["rls/2"]["statusReason"].startswith("masked: ")
    assert mutants["rls/off"]["location"]["end"]["line"] == 2


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The published JSON Schema of the report, through npm."""
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("npm")
    if npm is None:
        pytest.skip("npm is not installed: the schema cannot be fetched")
    try:
        words = (npm, "pack", f"{SCHEMA}@3", "--silent", "--pack-destination", str(folder))
        subprocess.run(words, cwd=folder, timeout=60, check=True, capture_output=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm could not fetch the schema: {error}")
    with tarfile.open(next(folder.glob("*.tgz"))) as packed:
        member = packed.extractfile(f"package/src/{SCHEMA}.json")
        assert member is not None
        found: dict[str, Any] = json.load(member)
        return found


def test_the_matrix_is_valid_by_the_published_schema(schema: dict[str, Any]) -> None:
    """The report is valid by the schema of Stryker's viewer."""
    validator = pytest.importorskip("jsonschema_rs").validator_for(schema)
    assert validator.is_valid(matrix())
    broken = matrix()
    next(iter(broken["files"].values()))["mutants"][0]["status"] = "Slain"
    assert not validator.is_valid(broken), "the control"


def test_the_reports_show_every_cell_and_obey_nothing() -> None:
    """Every report names every fault; markup in a catalogue is shown as text."""
    markdown, document, terminal = summary.markdown(PROOF), page(PROOF), summary.terminal(PROOF)
    for cell in PROOF.cells:
        assert all(cell.fault.id in text for text in (markdown, document, terminal))
    assert "2 of 2 faults killed" in terminal
    assert "under 100 % with 95 % confidence" in terminal
    assert "<script>" not in document
    assert "<script>" not in markdown


def test_a_proof_is_cited_by_runs_of_the_same_policy_alone(tmp_path: Path) -> None:
    """Without a valid proof of the same policy, a run says "never proved"."""
    file, policy = tmp_path / "proof.json", Policy()
    mine = replace(PROOF, digest=policy.proof_digest, policy=policy.proof_parts)
    assert cited(file, policy, "code")["proved"] is False
    file.write_text(mine.dump())
    assert cited(file, policy, "code") == {
        "proved": True,
        "sentence": "proved on 2025-01-13: 2 of 2 known faults killed, 1 healthy run: none rolled back (under 100 %)",
    }
    assert str(cited(file, policy, "other")["sentence"]).startswith(
        "proved on 2025-01-13, by an earlier state of its code:"
    )
    invalid = replace(mine, cells=(KILLED,)).dump()
    for text, said in (
        ("{}", "never proved: the proof cannot be read"),
        ("rubbish", "never proved"),
        (invalid, "never proved: the proof of 2025-01-13 is invalid"),
    ):
        file.write_text(text)
        assert str(cited(file, policy, "code")["sentence"]).startswith(said)


def test_a_proof_of_another_policy_says_what_was_another(tmp_path: Path) -> None:
    """The sentence names checks that are new, gone or changed, and counts other rules."""
    a, b, c = (CheckSpec(f"drill/{n}", "", "", Severity.PAGE, Where.READ_ONLY) for n in "abc")
    proved, file = Policy((a, b), max_age_minutes=5), tmp_path / "proof.json"
    file.write_text(replace(PROOF, digest=proved.proof_digest, policy=proved.proof_parts).dump())
    told = cited(file, Policy((replace(a, severity=Severity.WARN), c)), "code")
    other = "without drill/c, with drill/b, with another drill/a and 1 more: 2 of 2 known faults killed"
    assert told["proved"] is False
    assert str(told["sentence"]).startswith(f"never proved with this policy; proved on 2025-01-13 was another, {other}")


def test_a_proof_holds_whatever_release_target_and_depth_but_not_for_other_rules() -> None:
    """The proof's digest leaves out release, target and depth, and covers every rule."""
    policy = Policy()
    same = replace(policy, release="r2", target=TargetKind.STAGING, deep=True)
    assert policy.proof_digest == same.proof_digest
    assert policy.digest != same.digest
    assert policy.proof_digest != replace(policy, max_age_minutes=5).proof_digest


def test_the_digest_of_the_source_sees_every_change_of_code(tmp_path: Path) -> None:
    """A changed line, name or file changes the digest; the kept proof does not."""
    (tmp_path / "gates" / "proof").mkdir(parents=True)
    (tmp_path / "gates" / "a.py").write_text("1")
    seen = [source_digest(tmp_path)]
    (tmp_path / "gates" / "proof" / "last.json").write_text("{}")
    assert source_digest(tmp_path) == seen[0]
    for change in ("2", "3"):
        (tmp_path / "gates" / "a.py").write_text(change)
        seen.append(source_digest(tmp_path))
    (tmp_path / "gates" / "a.py").rename(tmp_path / "gates" / "b.py")
    assert len({*seen, source_digest(tmp_path)}) == 4


def checks(*ids: str, where: Where = Where.SELF_CLEANING, after: tuple[str, ...] = ()) -> list[CheckSpec]:
    return [CheckSpec(c, "", "", Severity.PAGE, where, after=after) for c in ids]


def test_the_canary_is_what_kills_most_in_its_seconds() -> None:
    """Most kills per second, without load or staging-only drills; what SQL sees needs no drill; the rest is listed."""
    specs = [
        *checks("drill/many", "drill/few", "drill/slow", "drill/first"),
        *checks("sql/reads", where=Where.READ_ONLY),
        *checks("drill/daring", where=Where.STAGING),
        *checks("load/rate"),
        *checks("drill/later", after=("drill/first", "preflight/database")),
    ]
    costs = {s.id: Cost(1.0, 1) for s in specs} | {"drill/slow": Cost(9.0, 1)}
    killers = {
        "a": ["drill/many", "drill/few"], "b": ["drill/many"], "c": ["drill/few"], "d": ["drill/slow", "load/rate"],
        "e": ["drill/daring"], "f": ["sql/reads"], "g": ["drill/later"],
    }  # fmt: skip
    few = canary(killers, costs, specs, 1.5)
    assert (few.checks, few.kills, few.of, few.given_up) == (("drill/many",), 3, 7, ("c", "d", "e", "g"))
    more = canary(killers, costs, specs, 4.0)
    assert (more.checks, more.given_up) == (("drill/few", "drill/first", "drill/later", "drill/many"), ("d", "e"))
    assert more.seconds == 4.0
    assert canary({}, {}, specs, 4.0) == Canary()


def test_what_a_check_is_worth() -> None:
    """A check is worth the faults it killed, and those it alone killed; idle ones are listed with their cost."""
    found = worth([["a", "b"], ["b"], ["c", "b", "a"]], {"idle": Cost(3.0, 2), "a": Cost(1.0, 9)})
    assert found == (
        Worth("b", 3, 1, Cost()),
        Worth("a", 2, 0, Cost(1.0, 9)),
        Worth("c", 1, 0, Cost()),
        Worth("idle", 0, 0, Cost(3.0, 2)),
    )


def test_the_page_gets_the_last_proof_between_its_marks(tmp_path: Path) -> None:
    """Only the text between the marks is replaced; a page without marks is an error."""
    page, shipped = tmp_path / "proof.md", tmp_path / "last.json"
    text = (Path(__file__).resolve().parents[3] / "docs" / "proof.md").read_text(encoding="utf-8")
    page.write_text(text, encoding="utf-8")
    whole = replace(PROOF, whole=True)
    last.keep(shipped, page, whole)
    once = page.read_text(encoding="utf-8")
    assert "2 of 2 faults killed" in once
    assert "1 healthy run: none rolled back" in once
    last.keep(shipped, page, whole)
    assert page.read_text(encoding="utf-8") == once
    assert once.partition(last.FAULTS[0])[0] == text.partition(last.FAULTS[0])[0]
    assert once.partition(last.SUITES[1])[2] == text.partition(last.SUITES[1])[2]
    with pytest.raises(ValueError, match="not in the page"):
        last.in_page("# no marks", last.FAULTS, last.of_faults(PROOF))


def test_suites_are_kept_each_by_itself_and_cited_with_its_own_state(tmp_path: Path) -> None:
    """A proof of one suite leaves the others' results; each is cited with the code that it was made of."""
    page, shipped, policy = tmp_path / "proof.md", tmp_path / "last.json", Policy()
    page.write_text("\n".join((*last.FAULTS, *last.SUITES)), encoding="utf-8")
    faults = replace(PROOF, digest=policy.proof_digest, policy=policy.proof_parts, trials=(), source="old", whole=True)
    slow = replace(GOOD, name="slow", decision="hold", reason="an alert had no sample")
    healthy = replace(faults, cells=(), trials=(GOOD, slow), source="new", whole=False, finished_at="2025-02-01T00:00")
    last.keep(shipped, page, faults)
    last.keep(shipped, page, healthy)
    kept = json.loads(shipped.read_text())
    assert kept["trials"]["healthy"]["held"] == {"slow": "an alert had no sample"}
    assert (kept["killed"], kept["source"], kept["trials"]["healthy"]["source"]) == (2, "old", "new")
    shown = page.read_text(encoding="utf-8")
    assert "2025-02-01, 2 healthy runs: none rolled back (under 100 %), 1 held" in shown
    assert "slow: an alert had no sample" in shown
    said = str(cited(shipped, policy, "new")["sentence"])
    assert "2 of 2 known faults killed (by an earlier state of its code), 2 healthy runs" in said
    last.keep(shipped, page, faults)
    assert json.loads(shipped.read_text())["trials"] == kept["trials"]


def healthy_proof(source: str, runs: int, **changes: Any) -> Proof:
    """A proof of `runs` equal healthy runs."""
    trials = tuple(replace(GOOD, name=f"slow@{n}", **changes) for n in range(runs))
    return replace(PROOF, cells=(), trials=trials, source=source, finished_at=f"2025-02-01, {source}")


def test_healthy_runs_of_earlier_code_fill_up_what_says_one_in_a_hundred(tmp_path: Path) -> None:
    """Earlier runs count as far as a bound of 1 % needs them, once each, and none from before a rollback."""
    page, shipped = tmp_path / "proof.md", tmp_path / "last.json"
    page.write_text("\n".join((*last.FAULTS, *last.SUITES)), encoding="utf-8")

    def kept(proof: Proof) -> str:
        last.keep(shipped, page, proof)
        return page.read_text(encoding="utf-8")

    kept(healthy_proof("first", 90))
    held = kept(healthy_proof("second", 150, decision="hold", reason="no sample"))
    assert "240 healthy runs: none rolled back (under 1.3 %), 150 held; 90 of them in earlier proofs" in held
    assert "slow: no sample" in held
    assert "250 healthy runs" in kept(healthy_proof("second", 160, decision="hold")), "these runs instead of its others"
    assert "310 healthy runs: none rolled back (under 1 %), 160 held; 250 of them" in kept(healthy_proof("third", 60))
    assert "310 healthy runs: none rolled back (under 1 %); 60 of them" in kept(healthy_proof("fourth", 250))
    back = kept(healthy_proof("fifth", 1, decision="rollback", ok=False))
    assert "311 healthy runs: 1 rolled back; 310 of them" in back
    assert "10 healthy runs: none rolled back" in kept(healthy_proof("sixth", 10))
