"""`gate prove` at the command line: what it lists, what it refuses, what it prints."""

import json
from pathlib import Path
from typing import Any

import pytest

from gates import cli
from gates.proof import command
from gates.proof.proof import Proof
from gates.proof.prove import Prover
from gates.proof.request import ProofRequest
from gates.proof.trial import ProofPart, Trial


def test_it_lists_what_it_would_examine(capsys: pytest.CaptureFixture[str]) -> None:
    """`--list` shows the chosen faults and trials, and starts nothing."""
    assert cli.main(["prove", "--list", "--only", "noop/*", "--only", "healthy/ipv6", "--only", "self/stale"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["id", "noop/nothing", "healthy/ipv6", "self/stale"]


@pytest.mark.parametrize("words", [["--only", "x"], ["--suite", "self", "--only", "x"], ["--sample", "3"], ["--short"]])
def test_only_whole_suites_are_kept(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """`--keep` refuses a part of a suite: later runs would cite it as the whole."""
    assert cli.main(["prove", "--keep", *words]) == 2
    assert "--keep" in capsys.readouterr().err


def test_what_is_called_nothing_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--only` with a pattern that matches nothing is a usage error: otherwise it would count as proved."""
    assert cli.main(["prove", "--only", "no/such/fault", "--output", str(tmp_path)]) == 2
    assert "no/such/fault" in capsys.readouterr().err


@pytest.mark.parametrize(("decision", "ok", "code"), [("hold", True, 0), ("promote", False, 20), ("", False, 10)])
def test_the_result_is_printed_and_kept_where_it_is_asked_for(
    decision: str,
    ok: bool,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The result is printed as a table or as JSON; `--keep` stores it; the exit code is the proof's."""

    def run(prover: Prover) -> Proof:
        request: ProofRequest = prover._request
        one = Trial(ProofPart.SELF, "stale", "old evidence", ("hold",), decision, decision == "hold", "why")
        assert request.whole
        return Proof("2025-01-13T12:00:00", "sha256:1", "staging", "0", trials=(one,), whole=True)

    monkeypatch.setattr(Prover, "run", run)
    monkeypatch.setattr(command, "SHIPPED", tmp_path / "last.json")
    page = command.DOCS.read_text(encoding="utf-8")
    monkeypatch.setattr(command, "DOCS", tmp_path / "proof.md")
    command.DOCS.write_text(page, encoding="utf-8")
    assert cli.main(["prove", "--keep", "--json"]) == code
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert printed == {**json.loads((tmp_path / "last.json").read_text()), "costs": {}}
    assert cli.main(["prove"]) == code
    assert "self/stale" in capsys.readouterr().out


def test_a_policy_with_names_proves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The deployments of a proof have the contract's own names: a mapping would make every one of them look broken."""
    policy = tmp_path / "gate.yaml"
    policy.write_text("version: 1\nnames: {schema: app}\n", encoding="utf-8")
    assert cli.main(["prove", "--list", "--policy", str(policy)]) == 3
    assert "gate.yaml:2:8: names or claims of a deployment" in capsys.readouterr().err
