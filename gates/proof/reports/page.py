"""proof.html: one self-contained page of a proof, in the style of report.html. Pure."""

from collections.abc import Iterable, Sequence

from gates.evidence import shown_time
from gates.proof.judgement import Cell, Status
from gates.proof.proof import Proof
from gates.proof.reports.summary import lines
from gates.proof.trial import Trial
from gates.reports.page import document, outcome
from gates.text.inert import Html

COLOURS = {0: "promote", 10: "hold", 20: "rollback"}
TITLES = {0: "as declared", 10: "not proved", 20: "invalid or harmful"}
DOTS = {Status.KILLED: "pass", Status.SURVIVED: "fail"}


def page(proof: Proof) -> Html:
    title = f"proof of the gate: {TITLES[proof.exit_code]}"
    facts = {
        "proved": shown_time(proof.finished_at),
        "target": proof.target,
        "faults": str(len(proof.faults)),
        "killed": str(proof.killed),
        "healthy runs": str(proof.healthy_runs),
        "rolled back": str(proof.rollbacks),
    }
    shown = Html("").join(Html("<span>{} <b>{}</b></span>").format(name, value) for name, value in facts.items())
    header = Html('<header class="{}"><div><h1>{}</h1><div class="facts">{}</div></div></header>').format(
        COLOURS[proof.exit_code], TITLES[proof.exit_code], shown
    )
    said = Html("<ul>{}</ul>\n").format(Html("").join(Html("<li>{}</li>").format(line) for line in lines(proof)))
    parts = (said, _faults(proof.cells), _trials(proof.trials), _smallest(proof))
    idle = _list("Checks that killed nothing", proof.idle)
    foot = Html("<footer>replaygate {} · policy {}</footer>\n").format(proof.gate, proof.digest)
    return document(title, header, Html("").join([*parts, idle, foot]), scripted=False)


def _faults(cells: Sequence[Cell]) -> Html:
    return Html("").join([Html("<h2>Faults</h2>\n"), *map(_fault, cells)]) if cells else Html("")


def _fault(cell: Cell) -> Html:
    dot = "pass" if cell.as_declared else DOTS.get(cell.status, "unknown")
    opened = "" if cell.as_declared else " open"
    killers = Html("").join(Html("<li>{}</li>").format(check) for check in cell.killers)
    others = [check for check in cell.failed if check not in cell.killers]
    more = Html("<p>Also failed: {}</p>").format(", ".join(others)) if others else Html("")
    source = cell.fault.sql or cell.fault.parts or cell.fault.event
    return Html(
        '<details class="row"{}><summary>{} {}<em>{}, {}, {} checks</em></summary>'
        '<div><p class="claim">{}</p><p>{}</p><ul>{}</ul>{}<pre>{}</pre></div></details>\n'
    ).format(
        opened,
        outcome(dot),
        cell.fault.id,
        cell.status.value,
        cell.decision or "no decision",
        len(cell.killers),
        cell.fault.breaks,
        cell.reason,
        killers,
        more,
        source,
    )


def _trials(trials: Sequence[Trial]) -> Html:
    if not trials:
        return Html("")
    rows = Html("").join(
        Html(
            '<details class="row"{}><summary>{} {}<em>{}</em></summary><div>'
            '<p class="claim">{}; right are: {}</p><p>{}</p></div></details>\n'
        ).format(
            "" if t.ok else " open",
            outcome("pass" if t.ok else "fail"),
            t.id,
            t.decision or "no decision",
            t.said,
            ", ".join(t.allowed),
            t.reason,
        )
        for t in trials
    )
    return Html("<h2>Trials</h2>\n{}").format(rows)


def _smallest(proof: Proof) -> str:
    small = proof.minimal
    cost = f"{small.seconds:.1f} s, {small.observed} observations"
    return _list(f"Smallest set of checks for production ({cost})", small.checks) if small.checks else ""


def _list(title: str, items: Iterable[str]) -> Html:
    rows = Html("").join(Html("<li>{}</li>").format(one) for one in items)
    return (
        Html("<details class='group'><summary>{}</summary><ul>{}</ul></details>\n").format(title, rows)
        if rows
        else Html("")
    )
