"""A proof for people: the tables for the terminal, and proof.md. Pure."""

from collections.abc import Mapping, Sequence

from gates.proof.judgement import Cell, Status
from gates.proof.mutants.campaign import DEAD, EQUIVALENT, MANIFEST
from gates.proof.proof import MOST_REASON, Proof, names
from gates.proof.trial import ProofPart, Trial
from gates.reports.formats.markdown import EMPTY, head
from gates.reports.terminal import table
from gates.text.inert import Markdown, Terminal
from gates.text.quantity import with_unit
from gates.verdict import Decision

MOST_IDLE = 400


def lines(proof: Proof) -> list[str]:
    """The result of a proof, one sentence per line."""
    left = [f"not examined: {', '.join(proof.pending)}"] if proof.pending else []
    return [*of_faults(proof), *_of_trials(proof), *left]


def of_faults(proof: Proof) -> list[str]:
    said = [f"INVALID: {proof.invalid}"] if proof.invalid else []
    if proof.cells:
        per = sum(c.seconds for c in proof.cells) / len(proof.cells)
        said.append(
            f"{proof.killed} of {len(proof.faults)} faults killed; {per:.0f} s a fault, {proof.seconds:.0f} s in all"
        )
        whole = len(proof.by_the_gate)
        if short := len(proof.faults) - whole:
            left_out = "no preflight, no decision over all checks"
            beside = sum(bool(c.beside) for c in proof.by_the_gate)
            at_once = f", {beside} of them several at once" if beside else ""
            said.append(f"{short} by their declared checks alone ({left_out}), {whole} by the whole gate{at_once}")
        if alone := sum(not c.beside for c in proof.by_the_gate):
            late = ", ".join(f"{c.fault.id} ({c.first})" for c in proof.named_late)
            named = f"another cause was named first: {late}" if late else "the check that killed it was named first"
            said.append(f"of the faults that the whole gate saw alone ({alone}): {named}")
        if proof.compared:
            both = f"{len(proof.compared)} were shown both ways, {len(proof.differing)} killed by the short way alone"
            said.append(f"{both}: {names(proof.differing)}" if proof.differing else both)
        left = [c for c in proof.faults if c.status is not Status.KILLED]
        said += [f"not killed: {names(left)}"] if left else []
        said += [f"killed by one check only: {names(proof.single)}"] if proof.single else []
        idle = f"{len(proof.idle)} of {len(proof.catalogue)} checks killed no fault here"
        said.append(f"{idle}, {len(proof.undeclared)} of them because none is declared that they must catch")
        small = proof.minimal
        which = "smallest set" if small.exact else "a small set (no smaller one was found)"
        cost = f"{small.seconds:.1f} s, {small.observed} observations"
        killed = "the one production fault" if small.faults == 1 else f"all {small.faults} production faults"
        said += [f"{which} that kills {killed}: {with_unit(len(small.checks), 'checks')}, {cost}"] * bool(small.checks)
        few = proof.canary
        drills = f"the canary's {len(few.checks)} drills ({few.seconds:.1f} s one after another) and what only reads"
        gives_up = f"{few.kills} of {few.of} production faults, and give up {len(few.given_up)}"
        said += [f"{drills} kill {gives_up}"] * bool(few.of)
    return said


def _of_trials(proof: Proof) -> list[str]:
    said = []
    for suite in ProofPart:
        trials = proof.of(suite)
        if trials:
            wrong = [t.name for t in trials if not t.ok]
            tail = f"; not as due: {', '.join(wrong)}" if wrong else ""
            said.append(f"{suite}: {len(trials) - len(wrong)} of {len(trials)} as due{tail}")
    if proof.drawn_anew:
        said.append(f"{ProofPart.PAIRS}: {drawn_anew(proof.drawn_anew)}")
    if proof.healthy_runs:
        bound = f"; {proof.bound} with 95 % confidence (3/R)" if proof.bound else ""
        said.append(f"healthy deployments rolled back: {proof.rollbacks} of {proof.healthy_runs} runs{bound}")
        kinds = {t.name.partition("@")[0] for t in proof.of(ProofPart.HEALTHY)}
        held = [t for t in proof.of(ProofPart.HEALTHY) if t.decision == Decision.HOLD.value]
        why = "; ".join(f"{t.name}: {t.reason[:MOST_REASON]}" for t in held)
        said.append(f"of {len(kinds)} kinds; held: {len(held)} runs" + (f": {why}" if why else ""))
    if mutants := proof.of(ProofPart.MUTANTS):
        said.append(of_mutants(mutants))
    if proof.unpassed_nowhere:
        said.append(f"passed on every degenerate server: {', '.join(proof.unpassed_nowhere)}")
    return said


def of_mutants(trials: Sequence[Trial]) -> str:
    """The results of the mutants, in numbers; those in `among` are some of the killed."""
    killed = [t for t in trials if t.decision and t.decision != Decision.PROMOTE.value]
    promoted = [t for t in trials if t.decision == Decision.PROMOTE.value]
    equivalent, lost = sum(t.reason.startswith(EQUIVALENT) for t in promoted), sum(not t.decision for t in trials)
    among = {
        "by the schema's manifest alone": sum(
            bool(t.unpassed) and all(c.startswith(MANIFEST) for c in t.unpassed) for t in killed
        ),
        "held without a failed check": sum(not t.unpassed for t in killed),
        "did not start": sum(t.reason.startswith(DEAD) for t in killed),
    }
    due = len(trials) - equivalent - lost
    said = f"{len(killed)} of {due} killed ({len(killed) / due:.1%})" if due else "none was judged"
    parts = ", ".join(f"{count} {what}" for what, count in among.items() if count)
    more = f"; {equivalent} more are equivalent; {len(promoted) - equivalent} are holes"
    return f"mutants: {said}{f', of them {parts}' * bool(parts)}{more}{f'; {lost} could not be judged' * bool(lost)}"


def drawn_anew(why: Mapping[str, str]) -> str:
    """How many pairs could not be in together and were replaced, and which."""
    each = "; ".join(f"{name} ({said[:MOST_REASON]})" for name, said in why.items())
    return f"{len(why)} that could not be in together were drawn anew: {each}"


def terminal(proof: Proof) -> Terminal:
    """The matrix and the trials as plain tables, then the sentences."""
    tables = []
    if proof.cells:
        rows = [_cell_row(c) for c in proof.cells]
        tables.append(table(rows, ("fault", "cell", "decision", "seconds", "killed by, or why not")))
    if proof.trials:
        shown = [
            (t.id, "ok" if t.ok else "WRONG", t.decision or "none", f"{t.seconds:.0f}", t.reason[:MOST_REASON])
            for t in proof.trials
        ]
        tables.append(table(shown, ("trial", "", "decision", "seconds", "reason")))
    return Terminal("\n").join([*tables, Terminal.of_lines(lines(proof))])


def _cell_row(cell: Cell) -> tuple[str, str, str, str, str]:
    mark = cell.status.value if cell.as_declared else cell.status.value.upper()
    return cell.fault.id, mark, cell.decision or "none", f"{cell.seconds:.0f}", why(cell)[:MOST_REASON]


def why(cell: Cell) -> str:
    """The checks that killed it, or why it was not killed."""
    if cell.status is not Status.KILLED:
        return cell.reason
    more = f" and {len(cell.killers) - 1} more" if len(cell.killers) > 1 else ""
    return cell.killers[0] + more


def markdown(proof: Proof) -> Markdown:
    facts = Markdown("{}, replaygate {}, policy {}.").format(proof.finished_at, proof.gate, proof.digest)
    out = [Markdown("# Proof of the gate"), EMPTY, facts, EMPTY, *items(lines(proof))]
    if proof.cells:
        titles = head("fault", "breaks", "cell", "decision", "killed by, or why not", "s")
        rows = [
            Markdown.row((c.fault.id, c.fault.breaks, c.status.value, c.decision, why(c)[:300], f"{c.seconds:.0f}"))
            for c in proof.cells
        ]
        out += [EMPTY, Markdown("## Faults"), EMPTY, *titles, *rows]
    if proof.trials:
        titles = head("trial", "what it is", "may be", "was", "right", "reason")
        rows = [
            Markdown.row((t.id, t.said, ", ".join(t.allowed), t.decision, _right(ok=t.ok), t.reason[:300]))
            for t in proof.trials
        ]
        out += [EMPTY, Markdown("## Trials"), EMPTY, *titles, *rows]
    if proof.minimal.checks:
        out += [EMPTY, Markdown("## Smallest set for production"), EMPTY, *items(proof.minimal.checks)]
    if given_up := proof.canary.given_up:
        out += [EMPTY, Markdown("## Given up by the canary"), EMPTY, *items(given_up)]
    if proof.cells:
        titles = head("check", "kills", "alone", "s", "observed")
        rows = [
            Markdown.row((w.check, str(w.kills), str(w.alone), f"{w.cost.seconds:.2f}", str(w.cost.observed)))
            for w in proof.worth
        ]
        out += [EMPTY, Markdown("## What a check is worth"), EMPTY, *titles, *rows]
        out += [EMPTY, Markdown("## Checks that killed nothing"), EMPTY, *items(proof.idle[:MOST_IDLE])]
    return Markdown.of_lines(out)


def items(texts: Sequence[str]) -> list[Markdown]:
    return [Markdown("- {}").format(text) for text in texts]


def _right(*, ok: bool) -> Markdown:
    return Markdown("yes") if ok else Markdown("**no**")
