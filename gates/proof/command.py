"""The command `gate prove`: its options as a request, and what it says at the end."""

from __future__ import annotations

import argparse
import datetime as dt
import json
from collections.abc import Callable, Mapping

from gates import config, lint
from gates.evidence import TargetKind
from gates.proof import summary
from gates.proof.prove import Prover, Request, listed
from gates.proof.trial import Suite
from gates.run import gate_version
from gates.terminal import table


def prove(options: argparse.Namespace, environ: Mapping[str, str], say: Callable[[str], None]) -> tuple[str, int]:
    """The text of the result, and the exit code: 0 all is as declared, 10 something is not, 20 the proof is invalid or
    the gate did harm. Raise GateError where nothing can be proved.
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
        kind=kind,
        gate=gate_version(),
        environ=environ,
        say=say,
    )
    if options.list:
        return table(listed(request), ("id", "expected", "what it is")), 0
    proof = Prover(request).run()
    if options.json:
        return json.dumps(proof.summary(), ensure_ascii=False, indent=1) + "\n", proof.exit_code
    return summary.terminal(proof), proof.exit_code
