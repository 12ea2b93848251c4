"""The command `gate prove`: its options as a request, and what it says at the end."""

from __future__ import annotations

import argparse
import datetime as dt

from gates import config, record
from gates.errors import UsageError
from gates.evidence import TargetKind
from gates.proof import summary
from gates.proof.prove import ProofRequest, Prover, listed
from gates.proof.trial import ProofPart
from gates.reports.citation import SHIPPED
from gates.reports.console import Console
from gates.reports.terminal import table
from gates.run import gate_version
from gates.stages import collection
from gates.text.inert import Terminal


def prove(options: argparse.Namespace, console: Console) -> int:
    """Carry the command out. The exit code: 0 all is as
    declared, 10 something is not, 20 the proof is invalid or the gate did harm. Raise GateError where nothing can be
    proved.
    """
    file = config.load_policy(options.policy, dt.datetime.now(dt.UTC).date())
    kind = TargetKind(options.target)
    request = ProofRequest(
        out=options.output.resolve(),
        policy=file.policy(collection.with_own_checks(file, console.environ), kind, "", deep=False),
        policy_options=("--policy", str(options.policy.resolve())) if options.policy else (),
        suites=tuple(s for s in ProofPart if not {s.value, "all"}.isdisjoint(options.suite or ["all"])),
        only=tuple(options.only),
        quick=options.quick,
        sample=max(options.sample, 0),
        kind=kind,
        gate=gate_version(),
        environ=console.environ,
        say=console.say,
    )
    if options.keep and not request.whole:
        raise UsageError(
            "--keep with --only, --suite or --sample; allowed: with a whole proof, which later runs cite. Drop one"
        )
    if options.list:
        console.result(table(listed(request), ("id", "expected", "what it is")))
        return 0
    proof = Prover(request).run()
    if options.keep:
        record.write(SHIPPED, proof.dump())
    console.result(Terminal.document(proof.dump()) if options.json else summary.terminal(proof))
    return proof.exit_code
