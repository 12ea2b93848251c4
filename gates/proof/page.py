"""proof.html: one self-contained page of a proof, in the style of report.html. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from gates.proof.judgement import Cell, Status
from gates.proof.proof import Proof
from gates.proof.summary import lines
from gates.proof.trial import Trial
from gates.reports.html import POLICY, text

STYLE = Path(__file__).resolve().parent.parent / "reports" / "report.css"
COLOURS = {0: "promote", 10: "hold", 20: "rollback"}
TITLES = {0: "as declared", 10: "not proved", 20: "invalid or harmful"}
DOTS = {Status.KILLED: "pass", Status.SURVIVED: "fail"}


def page(proof: Proof) -> str:
    """The whole document."""
    title = f"proof of the gate: {TITLES[proof.exit_code]}"
    facts = {
        "proved": proof.finished_at.replace("T", " ")[:19] + " UTC",
        "target": proof.target,
        "faults": str(len(proof.faults)),
        "killed": str(proof.killed),
        "healthy runs": str(proof.healthy_runs),
        "rolled back": str(proof.rollbacks),
    }
    shown = "".join(f"<span>{name} <b>{text(value)}</b></span>" for name, value in facts.items())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        f'<header class="{COLOURS[proof.exit_code]}"><div><h1>{TITLES[proof.exit_code]}</h1>'
        f'<div class="facts">{shown}</div></div></header>\n<main>\n'
        f"<ul>{''.join(f'<li>{text(line)}</li>' for line in lines(proof))}</ul>\n"
        f"{_faults(proof.cells)}{_trials(proof.trials)}{_smallest(proof)}"
        f"{_list('Checks that killed nothing', proof.idle)}"
        f"<footer>{text(f'replaygate {proof.gate} · policy {proof.digest}')}</footer>\n</main>\n</body>\n</html>\n"
    )


def _faults(cells: Sequence[Cell]) -> str:
    return "".join(["<h2>Faults</h2>\n", *map(_fault, cells)]) if cells else ""


def _fault(cell: Cell) -> str:
    dot = "pass" if cell.as_declared else DOTS.get(cell.status, "unknown")
    opened = "" if cell.as_declared else " open"
    killers = "".join(f"<li>{text(check)}</li>" for check in cell.killers)
    others = [check for check in cell.failed if check not in cell.killers]
    more = f"<p>Also failed: {text(', '.join(others))}</p>" if others else ""
    source = cell.fault.sql or cell.fault.parts or cell.fault.event
    return (
        f'<details class="row"{opened}><summary><i class="dot {dot}"></i>{text(cell.fault.id)}'
        f"<em>{cell.status.value}, {cell.decision or 'no decision'}, {len(cell.killers)} checks</em></summary><div>"
        f'<p class="claim">{text(cell.fault.breaks)}</p><p>{text(cell.reason)}</p><ul>{killers}</ul>{more}'
        f"<pre>{text(source)}</pre></div></details>\n"
    )


def _trials(trials: Sequence[Trial]) -> str:
    if not trials:
        return ""
    rows = "".join(
        f'<details class="row"{"" if t.ok else " open"}><summary><i class="dot {"pass" if t.ok else "fail"}"></i>'
        f"{text(t.id)}<em>{text(t.decision or 'no decision')}</em></summary><div>"
        f'<p class="claim">{text(t.said)}; right are: {text(", ".join(t.allowed))}</p>'
        f"<p>{text(t.reason)}</p></div></details>\n"
        for t in trials
    )
    return f"<h2>Trials</h2>\n{rows}"


def _smallest(proof: Proof) -> str:
    small = proof.minimal
    cost = f"{small.seconds:.1f} s, {small.observed} observations"
    return _list(f"Smallest set of checks for production ({cost})", small.checks) if small.checks else ""


def _list(title: str, items: Iterable[str]) -> str:
    rows = "".join(f"<li>{text(one)}</li>" for one in items)
    return f"<details class='group'><summary>{text(title)}</summary><ul>{rows}</ul></details>\n" if rows else ""
