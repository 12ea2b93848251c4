"""Mutants: what the operators make of a text, their names, what counts as killed, and a deployment made anew."""

import ast
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from gates.decision.rules import Policy
from gates.errors import ConfigError
from gates.evidence import CheckSpec, Severity, TargetKind, Where
from gates.proof.judgement import GateRun
from gates.proof.kept import KeptTrials
from gates.proof.matrix.campaign import RunScope
from gates.proof.mutants import clauses, statements
from gates.proof.mutants.campaign import EQUIVALENT, MutantCampaign, Seen, _Lane, nearest
from gates.proof.mutants.mutant import Mutant, companies, drawn, equivalents, mutants, planted, together
from gates.proof.mutants.written import written
from gates.proof.reports.summary import of_mutants
from gates.proof.trial import ProofPart, Trial
from gates.verdict import Decision, Effect, Exempt, Finding, Verdict

MODULE = '''
def limit(parts: Parts, used: int, most: int) -> bool:
    """Whether it is used up."""
    if used < most and parts.is_on:
        parts.note(used)
        raise Refusal("limit")
    return parts.left == 0
'''
QUERY = """
-- One row, and used < most here is said by a comment.
SELECT a.id FROM public.a a JOIN public.b b ON b.id = a.id
WHERE a.used < 5 AND a.dead_at IS NULL
ORDER BY a.id
LIMIT 10
FOR UPDATE SKIP LOCKED
"""
SCHEMA = """
CREATE TABLE public.a (
  id uuid PRIMARY KEY,
  used integer NOT NULL DEFAULT 0,
  CONSTRAINT a_used CHECK (used >= 0)
);
CREATE UNIQUE INDEX a_idx ON public.a (used);
ALTER TABLE public.a FORCE ROW LEVEL SECURITY;
"""
MUTANT = Mutant("budget.py:7:boundary-1", "budget.py:boundary-1", "<  => <=", "budget.py if used < most:", {})


def made(text: str, changes: object) -> dict[str, list[str]]:
    """The changed stretches, old and new, by operator."""
    found: dict[str, list[str]] = {}
    for one in changes:  # type: ignore[attr-defined]
        found.setdefault(one.operator, []).append(f"{text[one.start : one.end]} => {one.new}".strip())
    return found


def test_statements_comparisons_and_conditions_of_python_are_changed_one_at_a_time() -> None:
    """Each operator changes what it should, and every result is valid Python."""
    found = made(MODULE, statements.changes(MODULE))
    assert found["boundary"] == ["used < most => (used <= most)"]
    assert found["compare"] == ["parts.left == 0 => (parts.left != 0)"]
    assert found["and-or"] == ["used < most and parts.is_on => ((used < most) or (parts.is_on))"]
    assert {"parts.note(used) => pass", 'raise Refusal("limit") => pass'} == set(found["delete"])
    assert len(found["drop"]) == 2
    assert len(found["return"]) == 2
    for one in statements.changes(MODULE):
        ast.parse(MODULE[: one.start] + one.new + MODULE[one.end :])


TWICE = """
def look(parts: Parts) -> None:
    parts.note(1)

def see(parts: Parts, used: int) -> None:
    while True:
        if used == 0:
            return
        if _LOG.isEnabledFor(20):
            _LOG.info("seen")
        used -= 1
"""


def test_no_two_operators_make_the_same_of_a_statement() -> None:
    """No change is made twice under two names, and log statements are not changed."""
    found = made(TWICE, statements.changes(TWICE))
    assert found.pop("compare") == ["used == 0 => (used != 0)"]
    assert found.pop("delete") == ["parts.note(1) => pass", "used -= 1 => pass"]
    assert found.pop("constant") == ["True => False", "0 => 1"]
    assert len(found.pop("return")) == 1
    assert not found


def test_clauses_of_a_query_are_dropped_and_its_comparisons_changed() -> None:
    """Locks, orders, limits and conditions are dropped one at a time; comments are left alone."""
    found = made(QUERY, clauses.changes(QUERY, is_schema=False))
    assert set(found["lock"]) == {"FOR UPDATE SKIP LOCKED =>", "SKIP LOCKED =>"}
    assert found["order"] == ["ORDER BY a.id =>"]
    assert found["limit"] == ["LIMIT 10 =>"]
    assert set(found["drop"]) == {"b.id = a.id => true", "a.used < 5 => true", "a.dead_at IS NULL => true"}
    assert found["boundary"] == ["< => <="]
    assert "IS => IS NOT" in found["compare"]
    assert found["and-or"] == ["AND => OR"]
    assert "delete" not in found


def test_constraints_and_statements_of_a_schema_are_left_out() -> None:
    """Constraints are dropped, and so are statements that no other statement needs."""
    found = made(SCHEMA, clauses.changes(SCHEMA, is_schema=True))
    assert {"NOT NULL =>", "PRIMARY KEY =>"} <= set(found["constraint"])
    assert any("CONSTRAINT a_used CHECK (used >= 0)" in one for one in found["constraint"])
    assert [one.split()[0] for one in found["delete"]] == ["CREATE", "ALTER"]


def test_every_mutant_has_a_name_and_is_one_change_of_a_file() -> None:
    """Ids are unique; a seed draws the same mutants each time, and a shorter draw begins a longer one."""
    found = mutants()
    assert len(found) > 2000
    assert len({m.id for m in found}) == len(found)
    for one in found:
        old, _, new = one.said.partition(" => ")
        assert old != new
        ((path, text),) = one.texts.items()
        if path.endswith(".py"):
            ast.parse(text)
    ten = drawn(found, 10, "seed")
    assert [m.id for m in ten] == [m.id for m in drawn(found, 20, "seed")][:10]
    assert ten != drawn(found, 10, "another")


def test_a_planted_mutant_is_a_whole_package_with_one_file_changed() -> None:
    """The planted package has the mutant's file; the others are as before."""
    one = drawn(mutants(), 1, "seed")[0]
    with planted(one) as folder:
        for path, text in one.texts.items():
            assert (folder / path).read_text(encoding="utf-8") == text
        other = "replay_service/__init__.py"
        assert (folder / other).read_bytes() == Path(other).resolve().read_bytes()
    assert not folder.exists()


def of_the_budget(name: str, old: str, new: str) -> Mutant:
    path = "replay_service/sql/charge_budget.sql"
    return Mutant(name, name, name, "", {path: Path(path).read_text(encoding="utf-8").replace(old, new)})


def test_mutants_are_put_together_where_they_change_other_places() -> None:
    """A company combines mutants of different places; mutants of one place, or of the schema, stay apart."""
    free, never, late = (
        of_the_budget("free", "+ %(items)s,\n  monthly", ",\n  monthly"),
        of_the_budget("never", "company_id = %(company_id)s::uuid", "false"),
        of_the_budget("late", "%(company_id)s::uuid", "NULL"),
    )
    ((_, text),) = together([free, never]).texts.items()
    assert "ELSE 0 END ,\n  monthly" in text
    assert "WHERE false" in text
    with pytest.raises(ValueError, match="two changes of one place"):
        together([never, late])
    schema = next(m for m in mutants() if m.is_schema)
    assert companies([free, never, late, schema], 9) == [[free, never], [late], [schema]]
    assert companies([free, never], 1) == [[free], [never]]


WRITTEN = """
- id: budget-for-free
  breaks: A replay costs nothing.
  promise: The budget is charged by the number of items.
  patches:
    - {file: replay_service/sql/charge_budget.sql, find: UPDATE, replace: update}
    - {file: replay_service/migrations/NAME, find: "BEGIN", replace: ""}
"""


def file_of(tmp_path: Path, text: str) -> tuple[Path, Path]:
    """A file of written mutants, and the sources that they change."""
    for name, old in (("sql/charge_budget.sql", "UPDATE a SET b = c"), ("migrations/202601010000_a.sql", "BEGIN; a")):
        path = tmp_path / "replay_service" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(old, encoding="utf-8")
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace("NAME", "202601010000_a.sql"), encoding="utf-8")
    return file, tmp_path


def test_a_mutant_may_be_written_by_hand_and_change_several_files(tmp_path: Path) -> None:
    """A written mutant has its own id, text and patches, in the order of the file."""
    (one,) = written(*file_of(tmp_path, WRITTEN))
    assert (one.id, one.said, one.is_schema) == ("budget-for-free", "A replay costs nothing.", True)
    assert [*one.texts.values()] == ["update a SET b = c", "; a"]
    assert "charged by the number" in one.about


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("find: UPDATE", "find: nowhere", "mine.yaml:6:7: `find` stands 0 times"),
        ("charge_budget.sql", "none.sql", "mine.yaml:6:7: replay_service/sql/none.sql: No such file"),
        ("replay_service/sql/charge", "replay_service/../charge", "a file below replay_service/"),
        ("  breaks", "  brakes", "Did you mean 'breaks'?"),
        ("- id: budget-for-free", "- id: Budget", "small letters"),
        (WRITTEN, WRITTEN * 2, "each id once"),
        (WRITTEN, "a: b", "a list of at least 1"),
    ],
)
def test_a_wrong_file_of_mutants_is_told_with_its_place(tmp_path: Path, old: str, new: str, said: str) -> None:
    """The error names file, line and column, and what is wrong."""
    with pytest.raises(ConfigError) as caught:
        written(*file_of(tmp_path, WRITTEN.replace(old, new)))
    assert said in str(caught.value)


def test_each_equivalent_is_a_mutant_that_there_is() -> None:
    """Each mutant has its own key, and each listed equivalent is the key of a mutant that exists."""
    keys = {m.key for m in mutants()}
    assert len(keys) == len(mutants())
    stale = set(equivalents()) - keys
    assert not stale
    assert all(len(why) > 20 for why in equivalents().values())


def test_an_equivalent_is_named_once() -> None:
    """The same mutant under two reasons is an error."""
    with pytest.raises(ValueError, match="twice"):
        equivalents("a reason that says why: {a.py: [a, b]}\nanother one that says why: {a.py: [b]}\n")


def spec(name: str, claim: str) -> CheckSpec:
    return CheckSpec(name, claim, "", Severity.PAGE, Where.SELF_CLEANING)


def test_the_nearest_checks_speak_of_what_the_mutant_speaks_of() -> None:
    """The nearest check is the one whose words are those of the mutant."""
    specs = [spec("drill/audit/a", "The chain holds."), spec("drill/budget/b", "What is used is at most the limit.")]
    assert nearest(MUTANT, specs, 1) == [specs[1]]


def campaign(tmp_path: Path, why: str = "") -> MutantCampaign:
    def never(*_arguments: object, **_options: object) -> None:
        raise AssertionError("no deployment may be opened")

    known = {MUTANT.key: why} if why else {}
    policy = Policy((), TargetKind.STAGING, "r")
    return MutantCampaign(never, policy, (), tmp_path, RunScope(), known)  # type: ignore[arg-type]


def test_who_switches_checks_off_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a company makes checks not applicable, it is halved until the mutant that does so stands alone."""
    some = drawn([m for m in mutants() if not m.is_schema], 4, "seed")
    shown: list[int] = []
    done: list[Trial] = []

    def seen(_lane: object, members: Sequence[Mutant]) -> Seen:
        shown.append(len(members))
        found = saw(Decision.PROMOTE)
        gone = (Exempt("drill/a", "not claimed"),) if some[0] in members else ()
        verdict = dataclasses.replace(found.run.verdict, not_applicable=gone)  # type: ignore[type-var]
        return dataclasses.replace(found, run=GateRun(verdict))

    home = "gates.proof.mutants.campaign"
    monkeypatch.setattr(f"{home}.together", lambda members: members)
    monkeypatch.setattr(f"{home}._Lane._timed", lambda lane, members, _show: (seen(lane, members), 1.0))
    monkeypatch.setattr(f"{home}._Lane._put", lambda *_: True)
    monkeypatch.setattr(f"{home}._Lane._gate", lambda _lane: saw(Decision.PROMOTE).run)
    one = dataclasses.replace(campaign(tmp_path), done=done.append)
    _Lane(one, None, None, 1, lambda: False).company(some)  # type: ignore[arg-type]
    assert (shown, len(done)) == ([4, 2, 1, 1, 2], 4)


def saw(decision: Decision | None, *killers: str, **more: object) -> Seen:
    findings = tuple(Finding(c, "fail", "page", Effect.ROLLBACK) for c in killers)
    verdict = Verdict(decision, "the reason", findings=findings) if decision else None
    return Seen(GateRun(verdict, error="" if verdict else "no verdict"), killers, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "why", "ok", "reason"),
    [
        (saw(Decision.ROLLBACK, "drill/a"), "", True, "drill/a"),
        (saw(Decision.HOLD), "", True, "held: the reason"),
        (saw(Decision.ROLLBACK, "drill/a", starts=False), "", True, "it did not start; drill/a"),
        (saw(Decision.PROMOTE), "", False, "hole: the gate promoted: the reason"),
        (saw(Decision.PROMOTE), "nobody can see it", True, "equivalent: nobody can see it"),
        (saw(Decision.PROMOTE, starts=False), "", False, "hole: the gate promoted: the reason"),
        (saw(Decision.ROLLBACK, "drill/a"), "nobody can see it", False, "killed, and said to be equivalent"),
        (saw(None, error="StackError: no room"), "", False, "StackError: no room"),
    ],
)
def test_a_mutant_is_killed_equivalent_or_a_hole(tmp_path: Path, seen: Seen, why: str, ok: bool, reason: str) -> None:
    """Only a verdict decides; an error of the harness is no result."""
    one = campaign(tmp_path, why).judged(MUTANT, seen, 1.0)
    assert (one.ok, one.harmful) == (ok, False)
    assert one.reason.startswith(reason)
    assert bool(one.decision) == (seen.error == "")


def result(name: str, decision: str, reason: str, *killers: str) -> Trial:
    ok = decision != "promote" or reason.startswith(EQUIVALENT)
    return Trial(ProofPart.MUTANTS, name, "", (), decision, ok, reason, unpassed=killers)


def test_the_tally_counts_no_mutant_as_killed_that_is_none() -> None:
    """Equivalent mutants, and those that could not be judged, are in no rate."""
    found = of_mutants(
        [
            result("a", "rollback", "drill/a", "drill/a"),
            result("b", "rollback", "sql/manifest/x", "sql/manifest/x"),
            result("c", "hold", "held: why"),
            result("d", "promote", EQUIVALENT + "why"),
            result("e", "promote", "hole: why"),
            result("f", "", "StackError"),
        ]
    )
    assert found == (
        "mutants: 3 of 4 killed (75.0%), of them 1 by the schema's manifest alone, 1 held without a failed check; "
        "1 more are equivalent; 1 are holes; 1 could not be judged"
    )


def test_trials_go_on_where_a_proof_was_ended(tmp_path: Path) -> None:
    """Kept trials count if they have a decision and are of the same code; a line that was cut is ignored."""
    key, first = {"source": "a"}, result("a", "rollback", "drill/a", "drill/a")
    kept = KeptTrials(tmp_path, key, resume=False)
    kept.add(first)
    kept.add(result("b", "", "StackError"))
    kept.add(result("c", "promote", "hole: why"))
    with (tmp_path / "trials.ndjson").open("ab") as out:
        out.write(b'{"suite": "mut')
    again = KeptTrials(tmp_path, key, resume=True)
    assert again.all == (first, result("c", "promote", "hole: why"))
    assert ("mutants/a" in again, again.is_right("mutants/a"), again.is_right("mutants/c")) == (True, True, False)
    assert not KeptTrials(tmp_path, {"source": "b"}, resume=True).all
    assert dataclasses.replace(first, reason="x") not in again.all
