"""The catalogue of faults: every entry is whole, names checks that exist, and can be built."""

import fnmatch
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from faults.catalogue import EVENTS, Fault, behind_proxy, catalogue, declare
from faults.probe import Probe, ProbeError
from gates.proof.fault import read_list
from gates.proof.workbench.bench import ProofBench
from gates.stack.stack import Stack
from replay_service.settings import Settings, TokenRules
from replay_service.worker.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
FAULTS = list(catalogue(day=31).values())
CHECKS = [spec["id"] for spec in json.loads((ROOT / "gates" / "catalogue.json").read_text(encoding="utf-8"))]
SETTINGS = Settings("postgresql://x/y", (b"h" * 16,), TokenRules(b"j" * 32, "", ""))
WORKER = WorkerSettings("postgresql://x/y")
PLACES = {
    "service": "parts",
    "worker": "parts",
    "sql": "sql",
    "trigger": "sql",
    "process": "event",
    "proxy": "rewrite",
    "none": "",
}


def test_a_fault_is_whole() -> None:
    """It says in one sentence what breaks, how it is installed and undone, and what must catch it."""
    for fault in FAULTS:
        assert fault.breaks.endswith("."), fault.id
        places = {p for p in ("parts", "sql", "event", "rewrite") if getattr(fault, p)}
        assert places - {"sql"} <= {PLACES[fault.kind]} <= places | {""}, fault.id
        assert (fault.undo_sql is None) == (fault.sql is None), fault.id
        assert fault.event is None or fault.event in EVENTS, fault.id
        assert callable(fault.witness), fault.id
        assert (fault.decision == "promote") == (fault.kind == "none"), fault.id
        assert bool(fault.checks) == (fault.kind != "none"), fault.id
        assert bool(fault.names) or fault.kind in {"none", "proxy", "trigger"}, fault.id


def test_a_fault_without_effect_on_the_first_of_a_month_is_left_out_then() -> None:
    """On that day, and on no other."""
    late = {fault.id for fault in FAULTS if fault.from_day == 2}
    assert late
    assert catalogue(day=31).keys() - catalogue(day=1).keys() == late
    assert catalogue(day=2).keys() == catalogue(day=31).keys()


def test_the_declared_checks_exist() -> None:
    """Every id, or glob of ids, is one of the gate's checks."""
    wanted = {one for fault in FAULTS for one in (*fault.checks, *fault.green)}
    assert sorted(one for one in wanted if not fnmatch.filter(CHECKS, one)) == []


def test_a_composition_can_be_built() -> None:
    """What a statement or a part is replaced by still fits the service, or the worker, as it is now."""
    for fault in FAULTS:
        module, _, name = (fault.parts or "").partition(":")
        if module:
            build = getattr(importlib.import_module(module), name)
            assert build(SETTINGS if fault.kind == "service" else WORKER) is not None, fault.id


def test_ids_are_unique() -> None:
    """Two faults of one name are refused."""
    with pytest.raises(ValueError, match="two faults"):
        declare(FAULTS[0])


def test_a_proxy_is_its_own_witness(variables: dict[str, str]) -> None:
    """In front of the deployment only its own faults' witnesses see it; without it none does."""
    first, second, third = [f for f in FAULTS if f.kind == "proxy"][:3]
    with behind_proxy(variables, first, second) as told, Probe({**variables, **told}) as probe:
        assert [f.witness(probe) for f in (first, second, third)] == [True, True, False]
    with Probe(variables) as probe:
        assert not first.witness(probe)


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.kind == "trigger"], ids=lambda f: f.id)
def test_a_planted_fault_is_seen_and_leaves_nothing(fault: Fault, reference: Stack, variables: dict[str, str]) -> None:
    """Its witness says off, on, off."""
    bench, (told,) = ProofBench(reference, os.environ), read_list(json.dumps([fault.as_json()]))
    with Probe(variables) as probe:
        assert not fault.witness(probe)
        bench.put_in(told)
        try:
            assert fault.witness(probe)
        finally:
            bench.take_out(told)
        assert not fault.witness(probe)


def test_the_list_is_json() -> None:
    """`python -m faults list` prints one array with what the harness needs of each fault."""
    done = subprocess.run(
        [sys.executable, "-m", "faults", "list"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    listed = json.loads(done.stdout)
    assert sorted(f["id"] for f in listed) == sorted(catalogue())
    assert all(isinstance(f["env"], dict) and isinstance(f["checks"], list) for f in listed)


def test_a_witness_without_a_deployment_cannot_tell() -> None:
    """Without the deployment's variables a witness is an error, and never says that a fault is off."""
    done = subprocess.run(
        [sys.executable, "-m", "faults", "witness", "noop/nothing"],
        cwd=ROOT,
        env={"PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 4
    assert "BASE_URL" in done.stderr
    with pytest.raises(ProbeError):
        Probe({"BASE_URL": "http://127.0.0.1:1"})
