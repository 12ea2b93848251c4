"""`python -m faults list | witness ID | proxy ID`."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Sequence

import httpx
import psycopg

from faults.catalogue import behind_proxy, catalogue
from faults.probe import Probe, ProbeError

USAGE = "usage: python -m faults list | witness ID | proxy ID\n"
ON, OFF, BROKEN = 0, 1, 4


def main(argv: Sequence[str]) -> int:
    """Exit code of a witness: 0 the fault is on, 1 it is off, 4 the probe could not tell; 2 for wrong usage. A proxy
    prints what a gate is told of it, and serves until it is ended.
    """
    known = catalogue()
    if list(argv) == ["list"]:
        sys.stdout.write(json.dumps([fault.as_json() for fault in known.values()], indent=1) + "\n")
        return 0
    if len(argv) != 2 or argv[0] not in {"witness", "proxy"}:
        sys.stderr.write(USAGE)
        return 2
    if argv[1] not in known:
        sys.stderr.write(f"no fault is called {argv[1]}; `python -m faults list` names them all\n")
        return 2
    if argv[0] == "proxy":
        with behind_proxy(known[argv[1]], os.environ) as told:
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
            threading.Event().wait()
        return 0
    try:
        with Probe(os.environ) as probe:
            return ON if known[argv[1]].witness(probe) else OFF
    except (ProbeError, httpx.HTTPError, psycopg.Error) as error:
        sys.stderr.write(f"the witness of {argv[1]} cannot tell: {type(error).__name__}: {error}\n")
        return BROKEN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
