"""Runs `python -m loadtests` on a plan, as the gate does, and reads its result."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from loadtests.plan import LoadPlan, dump_plan

ROOT = Path(__file__).resolve().parent.parent.parent
N = TypeVar("N")
R = TypeVar("R")
ENVIRON = {"TRANSBOT_HMAC_SECRET": "a-secret-of-the-tests", "PATH": "/usr/bin:/bin"}


def start(plan: LoadPlan, folder: Path, **environ: str) -> subprocess.Popen[str]:
    """Start a run, with further variables; its result will be in `folder`/out."""
    path = folder / "plan.json"
    path.write_text(dump_plan(plan), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "loadtests", str(path), str(folder / "out")],
        cwd=ROOT,
        env=ENVIRON | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], folder: Path, *, timeout_s: float = 60) -> dict[str, Any]:
    """Wait for a run and return its result."""
    output, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, output
    document: dict[str, Any] = json.loads((folder / "out" / "result.json").read_text(encoding="utf-8"))
    return document


def at_once(names: Iterable[N], run: Callable[[N, Path], R], folder: Path, *, most: int = 3) -> list[tuple[N, R]]:
    """Runs that mostly wait for a target that does not answer, at the same time, each in a folder of its own."""
    folders = {name: folder / str(name) for name in names}
    for own in folders.values():
        own.mkdir()
    with ThreadPoolExecutor(most) as pool:
        return list(zip(folders, pool.map(run, folders, folders.values()), strict=True))


def children_of(process: int) -> list[int]:
    """The children that a process has now."""
    return [int(n) for n in Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()]


def verdicts(result: dict[str, Any]) -> dict[str, str]:
    """Verdict by check."""
    return {one["check"]: one["verdict"] for one in result["judgements"]}


def messages(result: dict[str, Any]) -> str:
    return " | ".join(one["message"] for one in result["judgements"])
