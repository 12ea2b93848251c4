"""The shipped proof, which runs cite: the faults, and each other suite, as of their last run."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gates import record
from gates.proof.proof import Proof
from gates.proof.reports import summary
from gates.reports.citation import BEFORE, HEALTHY, runs_of, suite_sentence
from gates.reports.formats.markdown import EMPTY, head
from gates.text.inert import Markdown

FAULTS = "<!-- the last proof -->", "<!-- the end of the last proof -->"
SUITES = "<!-- the other suites -->", "<!-- the end of the other suites -->"
ENOUGH = 300
"""Enough healthy runs to say that fewer than one in a hundred is rolled back: runs of earlier code fill up to it."""


def keep(shipped: Path, page: Path, proof: Proof) -> None:
    """Replace the parts of the kept proof that this proof has; the rest stays, with its own date and code."""
    before = json.loads(shipped.read_text(encoding="utf-8")) if shipped.exists() else {}
    kept, text = merged(before, proof), page.read_text(encoding="utf-8")
    record.write(shipped, json.dumps(kept, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    text = in_page(text, FAULTS, of_faults(proof)) if proof.whole else text
    record.write(page, in_page(text, SUITES, of_suites(kept["trials"])))


def merged(before: Mapping[str, Any], proof: Proof) -> dict[str, Any]:
    """What was kept, with this proof's suites, and with its faults if all of them were shown."""
    told: dict[str, Any] = proof.summary()
    known = {name: one for name, one in before.get("trials", {}).items() if one["run"]}
    if HEALTHY in told["trials"] and HEALTHY in known:
        told["trials"][HEALTHY][BEFORE] = _still_counted(told["trials"][HEALTHY], runs_of(known[HEALTHY]))
    return {**(told if proof.whole or not before else before), "trials": {**known, **told["trials"]}}


def _still_counted(now: Mapping[str, Any], before: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Healthy runs of earlier code that still count: the newest, until they are enough, none before a wrong one."""
    kept: list[dict[str, Any]] = []
    for one in before:
        if one["wrong"] or now["run"] + sum(k["run"] for k in kept) >= ENOUGH:
            break
        if one["source"] != now["source"]:  # a proof that went on has its first runs, too
            kept.append({key: value for key, value in one.items() if key != BEFORE})
    return kept


def in_page(page: str, marks: tuple[str, str], shown: Markdown) -> str:
    """The page with this text between its two marks. Raise ValueError if they are missing."""
    before, begin, rest = page.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"{' and '.join(marks)} are not in the page; write them where the proof is to stand")
    return f"{before}{begin}\n{str(shown).strip()}\n{end}{after}"


def of_faults(proof: Proof) -> Markdown:
    titles = head("faults of", "known", "killed", "given up by the canary")
    rows = [Markdown.row((word, str(count), str(killed), given_up)) for word, count, killed, given_up in proof.areas]
    said = [line for line in summary.of_faults(proof) if not line.startswith("killed by one check only")]
    items = summary.items([f"{proof.finished_at[:10]}, {proof.target}", *said])
    return Markdown.of_lines([*items, EMPTY, *titles, *rows])


def of_suites(suites: Mapping[str, Mapping[str, Any]]) -> Markdown:
    """Each suite besides the faults: its result, its date, and what did not come out right."""
    lines = list[Markdown]()
    for name, one in suites.items():
        wrong = "; not as due: " + ", ".join(one["wrong"]) if one["wrong"] else ""
        runs = (run for part in reversed(runs_of(one)) for run in part["held"].items())
        kinds = {run.partition("@")[0]: why for run, why in runs}  # of each its last run
        anew = f"; {summary.drawn_anew(one['drawn_anew'])}" if one.get("drawn_anew") else ""
        lines += summary.items([f"{one['proved_at'][:10]}, {suite_sentence(name, one)}{wrong}{anew}"])
        lines += [Markdown("    - held: {}: {}").format(kind, why) for kind, why in kinds.items()]
    return Markdown.of_lines(lines or summary.items(["none was kept yet"]))
