"""The suite `hostile`: its table is whole, its judgement is strict, and a seeded sample of it is carried out."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from gates.evidence import TargetKind
from gates.proof.hostile import acts, kills, liars
from gates.proof.hostile.acts import EMERGENCY, PROMOTE, ROLLBACK, Act, HandState
from gates.proof.hostile.arena import POLICY, Arena, HostileRun, live
from gates.proof.hostile.copies import Copies
from gates.proof.hostile.impostors import Gate, Impostor, impostors
from gates.proof.hostile.partitions import Hand
from gates.proof.hostile.residue import leaks
from gates.proof.hostile.suite import judged, names, on_the_hand, spread
from gates.proof.judgement import GateRun
from gates.proof.workbench import programs
from gates.proof.workbench.bench import ProofBench, bench
from gates.proof.workbench.programs import FinishedProgram
from gates.proof.workbench.servers import Asked, Reply, serve
from gates.stack.plan import StackOptions
from gates.verdict import Decision, Verdict
from tests.gates.gate_process import gate

AT_FIRST = HandState(True, "10", 1, 0, 6, 0, 0, 0, 0)
STEPPED = replace(AT_FIRST, percent="50", promoted=1)
OFF = replace(AT_FIRST, enabled=False, rows_on=0, rolled_back=1)
STOPPED = replace(OFF, paused=1, limits=0, audited_pauses=1, audited_clears=1)
UNCLEARED = replace(STOPPED, limits=6, audited_clears=0)
DONE, FAILED = '{"result": "done"}', '{"result": "failed"}'


def test_the_table_is_as_large_as_it_is_said_to_be_and_every_name_is_used_once() -> None:
    """There are at least a hundred servers, and `--only` can tell all names apart."""
    found = [name for name, _, _ in names()]
    assert len(impostors()) >= 100
    assert [name for name, count in Counter(found).items() if count > 1] == []
    assert all(name == name.lower() and "/" not in name for name in found)


def test_a_sample_is_spread_over_all_parts() -> None:
    """A sample takes names at equal distances; a size of 0 takes all."""
    wanted = [f"n{i}" for i in range(100)]
    assert len(spread(wanted, 0)) == 100
    assert len(spread(wanted, 200)) == 100
    assert spread(wanted, 4) == {"n0", "n25", "n50", "n75"}


@pytest.mark.parametrize(
    ("act", "after", "code", "out", "dark", "wrong"),
    [
        (PROMOTE, STEPPED, 0, DONE, False, ""),
        (PROMOTE, AT_FIRST, 10, "", False, ""),
        (PROMOTE, AT_FIRST, 0, DONE, False, "was not moved"),
        (PROMOTE, STEPPED, 4, "", False, "was moved"),
        (PROMOTE, STEPPED, 4, "", True, ""),
        (PROMOTE, STEPPED, 1, DONE, True, "crashed"),
        (PROMOTE, replace(STEPPED, promoted=0), 0, DONE, False, "0 audit rows"),
        (PROMOTE, replace(AT_FIRST, promoted=1), 10, "", False, "did not happen"),
        (ROLLBACK, OFF, 0, DONE, False, ""),
        (ROLLBACK, AT_FIRST, 0, DONE, True, "are on"),
        (ROLLBACK, AT_FIRST, 21, "", True, ""),
        (ROLLBACK, AT_FIRST, 21, "", False, "are on"),
        (ROLLBACK, OFF, 21, "", False, "back at once"),
        (ROLLBACK, OFF, 4, "", False, "allowed: 0, or 21"),
        (ROLLBACK, OFF, None, "", True, "did not end"),
        (EMERGENCY, STOPPED, 0, DONE, False, ""),
        (EMERGENCY, OFF, 0, DONE, False, "agents paused: 0"),
        (EMERGENCY, replace(STOPPED, limits=6), 0, DONE, True, "limits left: 6"),
        (EMERGENCY, UNCLEARED, 4, FAILED, True, ""),
        (EMERGENCY, UNCLEARED, 4, FAILED, False, "allowed: 0, or 21"),
        (EMERGENCY, OFF, 4, FAILED, True, "allowed: 0, or 21"),
        (ROLLBACK, replace(OFF, rolled_back=0), 21, "", True, "0 audit rows"),
        (ROLLBACK, replace(OFF, rolled_back=0), 21, "no audit row (flag_rolled_back) could be written", True, ""),
    ],
)
def test_what_an_act_says_must_be_what_it_did(
    act: Act, after: HandState, code: int | None, out: str, dark: bool, wrong: str
) -> None:
    """An act must report exactly what the database shows, and each change must have its audit row."""
    found = acts.complaints(act, AT_FIRST, after, FinishedProgram(code, out, ""), in_the_dark=dark)
    assert (wrong in " ".join(found)) if wrong else found == []


def test_a_server_is_withstood_only_with_a_right_decision_and_nothing_else_wrong() -> None:
    """The right decision with a leak does not count, nor does a run without a verdict; a promote is harm."""
    one = Impostor("x", "said", liars.counted(lambda _n: True, Reply(500)))
    held = GateRun(Verdict(Decision.HOLD, "why"))
    assert judged(one, HostileRun(held, ())).ok
    assert not judged(one, HostileRun(held, ("a leak",))).ok
    assert not judged(one, HostileRun(GateRun(None, 1.0, "no end"), ())).ok
    promoted = judged(one, HostileRun(GateRun(Verdict(Decision.PROMOTE, "why")), ()))
    assert promoted.harmful


def test_a_leak_is_found_in_every_spelling(tmp_path: Path) -> None:
    """A secret is found in files and in printed text, in every encoding but its reversal."""
    secret = "s3cret/with+signs"
    for number, form in enumerate(liars.forms(secret)):
        (tmp_path / f"f{number}").write_text(f"x {form} y", encoding="utf-8")
    found = leaks(tmp_path, [f"at {secret}"], {"KEY": secret})
    assert len(found) == len(liars.forms(secret)), "all but the one that is reversed, and what was printed"


@pytest.mark.parametrize("text", ["a\x1b[2J", "\u202ePWNED", "::error::PWNED", "x ##[error]PWNED"])
def test_live_text_on_the_terminal_is_found(tmp_path: Path, text: str) -> None:
    """Control sequences and pipeline commands are found; plain text is not reported."""
    assert live(tmp_path, [text])
    assert not live(tmp_path, ["plain ✓ text\nwith lines\n::error title=drill/x/y fail::says 'r PWNED'"])


def test_a_liar_stands_before_a_real_server() -> None:
    """Only the chosen requests get a false answer; the others reach the real server."""
    with serve(lambda asked: Reply(200, (), asked.path.encode())) as there:
        answer = liars.LIARS["only-health"][1](there, "r1")
        assert answer(Asked("GET", "/healthz")).status == 200
        assert answer(Asked("POST", "/dlq-replay")).reset


def test_kills_are_the_same_for_a_seed() -> None:
    """The same seed gives the same kills, so that a failure can be repeated."""
    assert kills.kills(1, 5) == kills.kills(1, 5) != kills.kills(2, 5)


# --- a sample, carried out ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hand() -> Iterator[Hand]:
    """Acts on copies of a database, cut at every eighth statement (a proof cuts all). Unkilled gates are forked."""

    def run(self: Act, environ: Mapping[str, str], database_url: str, _timeout_s: float = 0.0) -> FinishedProgram:
        done = gate(*self.words[3:], environ={**environ, "DATABASE_URL": database_url})
        return FinishedProgram(done.returncode, done.stdout, done.stderr)

    with mock.patch.object(Act, "run", run), bench(StackOptions(release="r1"), os.environ, TargetKind.STAGING) as made:
        yield Hand(Copies(made), programs.clean(os.environ, {}), every=8)


SAMPLE = (
    *("partition-promote-cut-after", "partition-rollback-cut-before", "database-change-undone"),
    *("database-other-percentage-late", "database-no-version", "person-flag-off-in-promote"),
    "database-audit-ends-the-session",
)


@pytest.mark.parametrize("name", SAMPLE)
def test_an_act_is_true_to_its_word(hand: Hand, name: str) -> None:
    """An act reports what it did though the network breaks, the database differs or a person interferes."""
    one = next(attack for attack in on_the_hand() if attack.name == name)
    assert one.attack(hand) == []


@pytest.mark.parametrize("act", acts.ACTS, ids=lambda act: act.name)
def test_a_killed_act_leaves_one_of_two_states(hand: Hand, act: Act) -> None:
    """A killed act was either done or not, and leaves no lock that blocks others."""
    assert kills.kill_act(hand, act, 7, 3) == []


def test_every_gate_kind_has_a_control() -> None:
    """For each kind of gate one server must be promoted: a gate that never promotes would withstand all."""
    controls = {one.gate for one in impostors() if one.allowed == (Decision.PROMOTE,)}
    assert controls == set(Gate)


def test_the_short_gate_promotes_a_healthy_deployment(deployment: ProofBench, tmp_path: Path) -> None:
    """The gate that most hostile servers meet is a real one: it still fits the whole gate that it is made of."""
    (policy := tmp_path / "gate.yaml").write_text(POLICY, encoding="utf-8")
    control = next(one for one in impostors() if one.name == "control-short")
    met = Arena(deployment, tmp_path, policy).meet(control)
    assert met == HostileRun(met.run, ())
    assert met.run.verdict is not None
    assert met.run.verdict.decision is Decision.PROMOTE
