"""The command `gate prove`: its options as a request, and what it says at the end."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Callable, Mapping

from gates import config, lint, record
from gates.errors import UsageError
from gates.evidence import TargetKind
from gates.proof import summary
from gates.proof.cited import SHIPPED
from gates.proof.prove import Prover, Request, listed
from gates.proof.trial import Suite
from gates.run import gate_version
from gates.terminal import table

Tell = Callable[[str], None]


def prove(options: argparse.Namespace, environ: Mapping[str, str], say: Tell, result: Tell) -> int:
    """Carry the command out; `result` takes its result, `say` what it tells meanwhile. The exit code: 0 all is as
    declared, 10 something is not, 20 the proof is invalid or the gate did harm. Raise GateError where nothing can be
    proved.
    """
    file = config.load_policy(options.policy, dt.datetime.now(dt.UTC).date())
    kind = TargetKind(options.target)
    request = Request(
        out=options.output.resolve(),
        policy=file.policy(lint.with_own_checks(file, environ), kind, "", deep=False),
        policy_options=("--policy", str(options.policy.resolve())) if options.policy else (),
        suites=tuple(s for s in Suite if not {s.value, "all"}.isdisjoint(options.suite or ["all"])),
        only=tuple(options.only),
        quick=options.quick,
        sample=max(options.sample, 0),
        kind=kind,
        gate=gate_version(),
        environ=environ,
        say=say,
    )
    if options.keep and not request.whole:
        raise UsageError(
            "--keep with --only, --suite or --sample; allowed: with a whole proof, which later runs cite. Drop one"
        )
    if options.list:
        result(table(listed(request), ("id", "expected", "what it is")))
        return 0
    proof = Prover(request).run()
    if options.keep:
        record.write(SHIPPED, proof.dump())
    result(proof.dump() if options.json else summary.terminal(proof))
    return proof.exit_code
