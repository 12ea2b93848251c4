"""A run on a full disk, in a folder that goes away, without its database or collector."""

import dataclasses
import errno
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from gates import record, reports, run
from gates.act.rollout import act
from gates.contract.scope import WHOLE
from gates.deployment.target import Target
from gates.errors import CannotWork, NotRolledBack
from gates.evidence import Evidence, JsonValue, Outcome
from gates.evidence_file import Unwritten, read_lines, rewritten
from gates.operator.execution import Interrupted
from gates.reports import attestation, render
from gates.reports.terminal import verdict_text
from gates.request import RunRequest
from gates.run import run_gate
from gates.stages.preflight import endpoints
from gates.verdict import NOT_ROLLED_BACK, Action, Decision, Verdict
from tests.gates.small_run import CATALOGUE, HARM, SMALL_TARGET, change, loaded
from tests.gates.test_attestation import ENVIRON, KEY


@pytest.fixture
def acted(monkeypatch: pytest.MonkeyPatch) -> list[Decision]:
    """The decisions that were acted upon; each act succeeds."""
    seen: list[Decision] = []

    def act(verdict: Verdict, *_order: object, **_tell: object) -> Action:
        seen.append(verdict.decision)
        if verdict.decision is Decision.PROMOTE:
            return Action("promote", 10, 50, "done", "outbox.enabled went from 10 % to 50 %")
        return Action("rollback", 10, 0, "done", "outbox.enabled was switched off in 0.1 s", flag="off")

    monkeypatch.setattr(run, "act", act)
    return seen


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def filling(asked: RunRequest, monkeypatch: pytest.MonkeyPatch) -> RunRequest:
    """The same run, whose disk is full from the load on."""

    def load(target: Target, out: Path) -> list[Evidence]:
        monkeypatch.setattr(record, "write", full)
        return loaded(target, out)

    return dataclasses.replace(asked, load=load)


def promoting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small catalogue lacks what every promotion needs."""
    monkeypatch.setattr(run, "decide", lambda *_: Verdict(Decision.PROMOTE, "all passed"))


@pytest.mark.parametrize(("main", "word"), [("pass", "promote"), (HARM, "rollback")])
def test_what_is_about_to_be_done_is_on_disk_before_it_is_done(
    asked: RunRequest, main: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate that is killed between the commit and its report leaves a hold that says so, here and in gate decide."""
    change(asked, main)
    if word == "promote":
        promoting(monkeypatch)

    def killed(*_order: object, **_tell: object) -> Action:
        left = json.loads((asked.out / "verdict.json").read_text(encoding="utf-8"))
        assert f"it was about to {word} outbox.enabled" in left["reason"]
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "act", killed)
    with pytest.raises(KeyboardInterrupt):
        run_gate(asked)
    again = record.recompute(asked.out)
    assert (again.decision, again.exit_code) == (Decision.HOLD, 10)
    assert "whether that was done is not known: see gate flags" in again.reason
    assert again.dump() == (asked.out / "verdict.json").read_text(encoding="utf-8")


def test_a_promotion_that_cannot_be_written_down_first_is_not_made(
    asked: RunRequest, acted: list[Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up before the act: nothing is done, exit code 4, and what is on disk says hold."""
    promoting(monkeypatch)

    with pytest.raises(CannotWork, match="No space left"):
        run_gate(filling(asked, monkeypatch))
    assert not acted
    assert json.loads((asked.out / "verdict.json").read_text(encoding="utf-8"))["decision"] == "hold"


def test_a_rollback_that_cannot_be_written_down_is_made(
    asked: RunRequest, acted: list[Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Harm was seen: the flag goes off, and what was done is in the error."""
    change(asked, HARM)

    with pytest.raises(CannotWork, match=r"outbox\.enabled was switched off in 0\.1 s.*No space left") as told:
        run_gate(filling(asked, monkeypatch))
    assert (acted, told.value.exit_code) == ([Decision.ROLLBACK], 4)


def test_rollback_that_fails_on_a_full_disk_is_exit_code_21(asked: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no database: the headline and the SQL are in the error, in place of every report."""
    change(asked, HARM)

    with pytest.raises(NotRolledBack, match=r"THE FLAG MAY STILL BE ON.*UPDATE public\.feature_flags") as told:
        run_gate(filling(asked, monkeypatch))
    assert told.value.exit_code == NOT_ROLLED_BACK


def test_a_report_that_breaks_hides_no_failed_rollback(asked: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends a run after that: exit code 21, the headline and the SQL."""
    change(asked, HARM)

    def broken(*_given: object, **_more: object) -> str:
        raise MemoryError

    monkeypatch.setattr(reports, "write", broken)
    monkeypatch.setattr("gates.run.tell", broken)
    with pytest.raises(NotRolledBack, match=r"THE FLAG MAY STILL BE ON.*MemoryError.*UPDATE public\.feature_flags"):
        run_gate(asked)


@pytest.mark.parametrize(("main", "decisions"), [("pass", []), (HARM, [Decision.ROLLBACK])])
def test_a_folder_that_is_removed_in_the_middle_stops_a_promotion_and_no_rollback(
    asked: RunRequest, acted: list[Decision], main: str, decisions: list[Decision]
) -> None:
    """What was seen until then counts for harm alone."""
    change(asked, main)

    def load(_target: Target, out: Path) -> list[Evidence]:
        shutil.rmtree(out)
        return [Evidence("load/small", Outcome.PASS, samples=60, observed=1.0, limit=2.0)]

    with pytest.raises(CannotWork):
        run_gate(dataclasses.replace(asked, load=load))
    assert acted == decisions


@pytest.mark.parametrize("another", [b"", b"\xff\n"])
@pytest.mark.parametrize(("main", "decisions"), [("pass", []), (HARM, [Decision.ROLLBACK])])
def test_evidence_that_is_replaced_in_the_middle_stops_a_promotion_and_no_rollback(
    asked: RunRequest, acted: list[Decision], main: str, decisions: list[Decision], another: bytes
) -> None:
    """The file that the run began is still open, and what stands in it was seen."""
    change(asked, main)

    def load(target: Target, out: Path) -> list[Evidence]:
        (out / "evidence.ndjson").unlink()
        (out / "evidence.ndjson").write_bytes(another)
        return loaded(target, out)

    with pytest.raises(CannotWork, match="somebody put another one there"):
        run_gate(dataclasses.replace(asked, load=load))
    assert acted == decisions


def cut(_text: bytes) -> bytes:
    return b""


def forged(text: bytes) -> bytes:
    """Every failure has passed, in a chain that is whole."""
    return rewritten(text, lambda one: dataclasses.replace(one, outcome=Outcome.PASS), lambda line: line)


@pytest.mark.parametrize("change_to", [cut, forged])
@pytest.mark.parametrize(("main", "decisions"), [("pass", []), (HARM, [Decision.ROLLBACK])])
def test_evidence_that_is_cut_or_written_over_in_place_stops_a_promotion_and_no_rollback(
    asked: RunRequest, acted: list[Decision], main: str, decisions: list[Decision], change_to: Callable[[bytes], bytes]
) -> None:
    """What was read before counts for harm, whatever the same file says now."""
    change(asked, main)

    def load(target: Target, out: Path) -> list[Evidence]:
        file = out / "evidence.ndjson"
        before = file.read_bytes()
        file.write_bytes(change_to(before))
        assert file.read_bytes() != before
        return loaded(target, out)

    with pytest.raises(CannotWork, match="lacks lines that were read in it before"):
        run_gate(dataclasses.replace(asked, load=load))
    assert acted == decisions


@pytest.mark.parametrize(
    ("release", "away", "outcome"),
    [("r2", 0, Outcome.FAIL), ("r1", 15, Outcome.PASS), ("r1", 10**6, Outcome.UNKNOWN)],
    ids=["another release", "a restart", "a long restart"],
)
def test_the_release_is_looked_at_again_when_all_else_was_seen(
    release: str, away: int, outcome: Outcome, asked: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that came during the load is harm; instances that restart are waited for, and not for ever."""
    monkeypatch.setattr("gates.decision.floor.FLOOR", {})
    monkeypatch.setattr("gates.stages.preflight.PATIENCE_S", 0.1 if away > 100 else 30.0)
    monkeypatch.setattr("gates.stages.preflight.POLL_S", 0.01)
    monkeypatch.setattr(SMALL_TARGET, "release", "r1")
    monkeypatch.setattr(SMALL_TARGET, "away", 0)

    def load(target: Target, out: Path) -> list[Evidence]:
        SMALL_TARGET.release, SMALL_TARGET.away = release, away
        return loaded(target, out)

    verdict = run_gate(dataclasses.replace(asked, load=load, policy=dataclasses.replace(asked.policy, scope=WHOLE)))
    lines = [e for e in read_lines(asked.out / "evidence.ndjson") if e.check == endpoints.RELEASE.id]
    assert [(e.round, e.outcome) for e in lines] == [("before", Outcome.PASS), ("", outcome)]
    assert (verdict.decision is Decision.ROLLBACK) is (outcome is Outcome.FAIL)
    assert (verdict.counts.passed == len(CATALOGUE)) is (outcome is Outcome.PASS)
    if outcome is Outcome.FAIL:
        assert "at the end of the run, /version says r2; allowed: r1" in verdict.reason


def test_harm_that_finds_no_room_on_disk_is_acted_upon(
    asked: RunRequest, acted: list[Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very line of the failure could not be written."""

    def no_room(path: Path, evidence: list[Evidence], _run: str) -> None:
        raise Unwritten(f"{path}: No space left on device", (*evidence,))

    def load(_target: Target, _out: Path) -> list[Evidence]:
        monkeypatch.setattr("gates.stages.context.write_lines", no_room)
        return [Evidence("load/small", Outcome.FAIL, samples=60, observed=3.0, limit=2.0)]

    with pytest.raises(CannotWork, match="was switched off"):
        run_gate(dataclasses.replace(asked, load=load))
    assert acted == [Decision.ROLLBACK]


def test_without_a_database_a_rollback_is_exit_code_21_in_every_report(asked: RunRequest) -> None:
    """The flag was not switched off: headline and SQL are in each of them, and gate decide says the same."""
    change(asked, HARM)
    verdict = run_gate(asked)
    assert (verdict.decision, verdict.exit_code) == (Decision.ROLLBACK, NOT_ROLLED_BACK)
    assert record.recompute(asked.out).exit_code == NOT_ROLLED_BACK
    evidence, file = read_lines(asked.out / "evidence.ndjson"), json.loads((asked.out / "run.json").read_text())
    for kind in ("html", "markdown", "junit", "slack"):
        text = render(kind, verdict, evidence, CATALOGUE, file)
        assert "THE FLAG MAY STILL BE ON" in text, kind
        assert "UPDATE public.feature_flags SET enabled = false WHERE key" in text, kind
    shown = str(verdict_text(verdict, colour=False))
    assert shown.lstrip().startswith("THE FLAG MAY STILL BE ON")
    assert "UPDATE public.feature_flags SET enabled = false WHERE key = 'outbox.enabled';" in shown


def test_a_collector_that_is_not_there_changes_nothing(asked: RunRequest) -> None:
    """OpenTelemetry is told last of all; what became of that is a warning, and stands in run.json."""
    told: list[str] = []
    environ = {**asked.environ, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:9/v1/metrics"}
    verdict = run_gate(dataclasses.replace(asked, environ=environ, warn=told.append))
    assert verdict.decision is run_gate(dataclasses.replace(asked, out=asked.out.with_name("plain"))).decision
    (said,) = [one for one in told if "OpenTelemetry" in one]
    kept = json.loads((asked.out / "run.json").read_text(encoding="utf-8"))["telemetry"]["error"]
    assert kept in said
    assert "The verdict stands all the same" in said


def test_an_old_promote_does_not_survive_on_a_full_disk(asked: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one byte can be written, and yet nobody finds yesterday's answer there."""
    asked.out.mkdir()
    (asked.out / "verdict.json").write_text(Verdict(Decision.PROMOTE, "yesterday").dump(), encoding="utf-8")
    (asked.out / "run.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(record, "write", full)
    with pytest.raises(CannotWork, match="No space left"):
        run_gate(asked)
    assert not list(asked.out.iterdir())


@pytest.fixture
def promoted(asked: RunRequest, acted: list[Decision], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an earlier run of this target, which promoted."""
    monkeypatch.setattr("gates.decision.floor.FLOOR", {})
    out = asked.out.with_name("earlier")
    small = dataclasses.replace(asked.policy, scope=WHOLE)
    assert run_gate(dataclasses.replace(asked, out=out, policy=small)).decision is Decision.PROMOTE
    acted.clear()
    return out


@pytest.mark.parametrize("names", [("run.json", "evidence.ndjson"), ("evidence.ndjson",), ("run.json",)])
def test_files_that_are_swapped_after_the_act_change_no_verdict(
    asked: RunRequest, promoted: Path, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flag may still be on: exit code 21 with the SQL, whatever an older run's files say."""
    monkeypatch.setattr(run, "act", act)
    change(asked, HARM)
    read = record.read

    def swapped(folder: Path) -> record.Recorded:
        for name in names:
            shutil.copy(promoted / name, folder / name)
        return read(folder)

    monkeypatch.setattr(record, "read", swapped)
    with pytest.raises(NotRolledBack, match=r"THE FLAG MAY STILL BE ON.*UPDATE public\.feature_flags"):
        run_gate(asked)
    monkeypatch.setattr(record, "read", read)
    assert json.loads((asked.out / "verdict.json").read_text(encoding="utf-8"))["decision"] == "hold"


def test_files_that_are_swapped_while_people_are_told_are_not_signed(
    asked: RunRequest, promoted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signature stands under what this run decided, or there is none."""
    change(asked, HARM)

    def tell(*_given: object) -> dict[str, JsonValue]:
        for name in ("run.json", "evidence.ndjson", "verdict.json"):
            shutil.copy(promoted / name, asked.out / name)
        return {}

    monkeypatch.setattr("gates.run.tell", tell)
    with pytest.raises(CannotWork, match="was switched off"):
        run_gate(dataclasses.replace(asked, environ={**asked.environ, **ENVIRON}))
    assert not (asked.out / "verdict.intoto.jsonl").exists()


@pytest.mark.parametrize("late", ["keep", "tell", "attest"])
def test_no_signal_excuses_a_failed_rollback(asked: RunRequest, late: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 21, the headline and the SQL, also where a job is cancelled in the report."""
    change(asked, HARM)

    def cancelled(*_given: object) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(run, late, cancelled)
    with pytest.raises(NotRolledBack, match=r"THE FLAG MAY STILL BE ON.*SIGTERM.*UPDATE public\.feature_flags"):
        run_gate(asked)


def test_a_key_that_goes_away_during_the_run_hides_nothing(asked: RunRequest, tmp_path: Path) -> None:
    """It is read when the run begins, and not again."""
    change(asked, HARM)
    key = tmp_path / "key.pem"
    key.write_text(ENVIRON["GATE_SIGNING_KEY"], encoding="utf-8")

    def load(target: Target, out: Path) -> list[Evidence]:
        key.unlink()
        return loaded(target, out)

    signs = {**asked.environ, "GATE_SIGNING_KEY": str(key)}
    verdict = run_gate(dataclasses.replace(asked, load=load, environ=signs))
    assert verdict.exit_code == NOT_ROLLED_BACK
    assert attestation.verify(asked.out, KEY.public_key()).doubts == ()
