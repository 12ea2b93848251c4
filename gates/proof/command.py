"""The command `gate prove`: its options as a request, and what it says at the end."""

import argparse
import datetime as dt
from pathlib import Path

from gates import config, gate_version
from gates.errors import UsageError
from gates.evidence import TargetKind
from gates.inputs import options as shared
from gates.proof import last
from gates.proof.mutants.written import written
from gates.proof.prove import Prover
from gates.proof.reports import summary
from gates.proof.request import LANES, ProofRequest, listed
from gates.proof.trial import ProofPart
from gates.reports.citation import SHIPPED
from gates.reports.console import Console
from gates.reports.terminal import table
from gates.stages import collection
from gates.stages.suite import ROOT
from gates.text.inert import Terminal

DOCS = ROOT / "docs" / "proof.md"


def add_arguments(made: argparse.ArgumentParser, _name: str) -> None:
    shared.policy(made)
    shared.as_json(made)
    shared.output(made, "proof-out")
    suites = [*(s.value for s in ProofPart), "all"]
    add = made.add_argument
    add("--suite", action="append", choices=suites, default=[], help="a part of the proof (default: all)")
    add("--only", action="append", default=[], metavar="GLOB", help="ids of faults, of their checks, or of trials")
    add("--quick", action="store_true", help="faults by their declared checks alone; a tenth by the whole gate, too")
    add("--short", action="store_true", help="faults by their declared checks alone, and none by the whole gate")
    add("--sample", type=shared.LIMIT, default=0, metavar="N", help="only N faults, spread over the catalogue")
    add("--healthy", type=shared.LIMIT, default=0, metavar="N", help="N runs on healthy variants (else one on each)")
    add("--mutants", type=Path, metavar="FILE", help="show the mutants of this file (docs/proof.md), no drawn ones")
    add("--seed", default="", metavar="TEXT", help="the seed of the sample, and of the faults for the whole gate")
    add(
        "--share", type=shared.LIMIT, default=10, metavar="N", help="with --quick, one in N by the whole gate (else 10)"
    )
    add("--minutes", type=shared.LIMIT, default=0, metavar="N", help="begin nothing after N minutes")
    add("--lanes", type=shared.LIMIT, default=LANES, metavar="N", help=f"deployments in parallel (default: {LANES})")
    add("--resume", action="store_true", help="continue the proof in --output")
    add("--target", choices=[k.value for k in TargetKind], default="staging", help="what the gate may do")
    add("--list", action="store_true", help="only list what would be examined")
    add(
        "--keep",
        action="store_true",
        help="let later runs of the gate, and docs/proof.md, cite these suites; what was kept of others stays",
    )


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """Exit code: 0 all is as declared, 10 something is not, 20 the proof is invalid or the gate did harm. Raise
    GateError if nothing can be proved.
    """
    file = config.load_policy(options.policy, dt.datetime.now(dt.UTC).date())
    if file.names:
        node = file.root.member("names") or file.root.member("contract") or file.root
        raise node.place.error(
            "names or claims of a deployment",
            "a policy without them: what is proved here has the contract's own names, and keeps the whole contract",
            "Leave them out, or name another policy (--policy)",
        )
    kind = TargetKind(options.target)
    default = [ProofPart.MUTANTS.value if options.mutants else "all"]
    request = ProofRequest(
        out=options.output.resolve(),
        policy=file.policy(collection.with_own_checks(file, console.environ), kind, "", deep=False),
        policy_options=("--policy", str(options.policy.resolve())) if options.policy else (),
        suites=tuple(s for s in ProofPart if not {s.value, "all"}.isdisjoint(options.suite or default)),
        only=tuple(options.only),
        quick=options.quick,
        short=options.short,
        resume=options.resume,
        lanes=max(options.lanes, 1),
        share=max(options.share, 1),
        minutes=max(options.minutes, 0),
        seed=options.seed,
        sample=max(options.sample, 0),
        mutants=written(options.mutants) if options.mutants else (),
        healthy_runs=max(options.healthy, 0),
        kind=kind,
        gate=gate_version(),
        environ=console.environ,
        say=console.say,
    )
    if request.mutants and ProofPart.MUTANTS not in request.suites:
        raise UsageError("--mutants with another --suite; allowed: with `mutants`, or with none. Drop one")
    if options.keep and not request.is_kept:
        raise UsageError(
            "--keep with --only, or with --sample or --short of the faults; allowed: with whole suites, which later "
            "runs cite. Drop one"
        )
    if options.list:
        console.result(table(listed(request), ("id", "expected", "what it is")))
        return 0
    proof = Prover(request).run()
    if options.keep and not proof.changed:
        last.keep(SHIPPED, DOCS, proof)
    console.result(Terminal.document(proof.dump()) if options.json else summary.terminal(proof))
    return proof.exit_code
