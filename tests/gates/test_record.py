"""What a folder of a run holds is foreign when it is read again: it may be of anybody."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gates import record, reports
from gates.errors import CannotWork
from gates.evidence import JsonValue, Outcome
from gates.verdict import Decision
from tests.gates.test_cli import saved

TOLD_BY_PYTHON = ("object", "argument", "unpack", "indices", "isoformat", "NoneType", "__init__", "Error")
ODD = [None, True, 2**70, "x", "\ud800", [None], {"a": 1}, "2026-01-01", "0001-01-01T00:00:00+23:59"]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    members = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for name, member in members:
        yield from places(member, (*at, name))


def test_a_run_whose_members_are_of_other_types_is_an_error_or_a_hold(tmp_path: Path) -> None:
    """Each member in turn, by values that no gate writes: no traceback on the way to the page, nor Python's words."""
    folder = saved(tmp_path, Outcome.PASS)
    before, told = (folder / record.RUN).read_text(encoding="utf-8"), set[str]()
    for at in list(places(json.loads(before)))[1:]:
        for odd in ODD:
            run = json.loads(before)
            owner = run
            for name in at[:-1]:
                owner = owner[name]
            owner[at[-1]] = odd
            (folder / record.RUN).write_text(json.dumps(run), encoding="utf-8")
            try:
                found = record.read(folder)
            except CannotWork as error:
                told.add(str(error).replace("no JSON object", ""))
                continue
            if len(at) == 1 and at[0] in record.TEXTS:
                assert isinstance(found.run[at[0]], str), at  # a number too large for others is read as text
            found.verdict.dump()
            for kind in ("html", "markdown"):
                reports.render(kind, found.verdict, found.evidence, found.specs(()), found.run)
    assert not [text for text in told for word in TOLD_BY_PYTHON if word in text]


def test_a_run_of_something_else_is_named_by_what_it_lacks(tmp_path: Path) -> None:
    """Another program's run.json is told in words of the file, not of Python."""
    (tmp_path / record.RUN).write_text('{"name": "another program"}')
    with pytest.raises(CannotWork, match="it has no member 'format'; allowed"):
        record.read(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"max_age_minutes": 60', '"max_age_minutes": 1440'),
        ('"target": "staging"', '"target": "production"'),
        ('"release": "', '"release": "another-'),
    ],
)
def test_a_run_whose_policy_is_that_of_another_yields_no_verdict(old: str, new: str, tmp_path: Path) -> None:
    """Its digest, its release and its kind of target stand beside the policy: what was mixed or softened shows."""
    folder = saved(tmp_path, Outcome.PASS)
    text = (folder / record.RUN).read_text(encoding="utf-8")
    assert old in text
    (folder / record.RUN).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(CannotWork, match="is not of the policy that stands in it"):
        record.read(folder)


@pytest.mark.parametrize("result", ["refused", "failed", "busy", "unknown", "off", "pending", "whatever"])
def test_an_action_that_did_not_happen_cannot_be_called_no_hold(result: str, tmp_path: Path) -> None:
    """An unsigned run.json is anybody's: its `holds` alone turns no refused step into a promote."""
    folder = saved(tmp_path, Outcome.PASS)
    run = json.loads((folder / record.RUN).read_text(encoding="utf-8"))
    run["action"] |= {"kind": "none", "result": result, "holds": False}
    record.write_run(folder, run)
    with pytest.raises(CannotWork, match="its member 'action' is not what a gate writes"):
        record.read(folder)
    run["action"]["holds"] = True
    record.write_run(folder, run)
    assert record.recompute(folder).decision is Decision.HOLD


@pytest.mark.parametrize(
    ("outcome", "kind", "code"),
    [(Outcome.PASS, "rollback", 10), (Outcome.PASS, "resume", 10), (Outcome.FAIL, "promote", 21)],
)
def test_an_action_of_another_decision_is_no_promote_and_no_rollback(
    outcome: Outcome, kind: str, code: int, tmp_path: Path
) -> None:
    """A record may say that the flag went the other way than the checks decide: then that is told."""
    folder = saved(tmp_path, outcome)
    run = json.loads((folder / record.RUN).read_text(encoding="utf-8"))
    run["action"] |= {"kind": kind, "result": "done", "holds": False, "message": ""}
    record.write_run(folder, run)
    assert record.recompute(folder).exit_code == code


def test_a_folder_on_a_full_disk_can_be_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that finds no room for its run.json leaves no promote, and does not lock later runs out of its folder."""
    begun: dict[str, JsonValue] = {"policy": {}, "release": "r", "target": "staging"}
    with record.locked(tmp_path):
        record.begin(tmp_path, begun)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "drill.log").touch()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, record.locked(tmp_path), pytest.raises(CannotWork, match="No space left"):
        patched.setattr(record, "write_run", full)
        record.begin(tmp_path, begun)
    assert {p.name for p in tmp_path.iterdir()} == {"logs", record.EVIDENCE}
    with record.locked(tmp_path):
        record.begin(tmp_path, begun)
