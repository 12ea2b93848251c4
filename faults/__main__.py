"""`python -m faults list | witness ID | proxy ID | serve`."""

import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import httpx
import psycopg

from faults.catalogue import Fault, behind_proxy, catalogue
from faults.probe import Probe, ProbeError

USAGE = "usage: python -m faults list | witness ID | proxy ID | serve\n"
ON, OFF, BROKEN = 0, 1, 4


def main(argv: Sequence[str]) -> int:
    """Exit code of a witness: 0 the fault is on, 1 it is off, 4 the probe could not tell; 2 for wrong usage. A proxy
    prints what a gate is told of it, and serves until it is ended. `serve` answers each line of JSON with one.
    """
    known = catalogue()
    if list(argv) == ["list"]:
        sys.stdout.write(json.dumps([fault.as_json() for fault in known.values()], indent=1) + "\n")
        return 0
    if list(argv) == ["serve"]:
        for answer in answers(known, map(json.loads, sys.stdin)):
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        return 0
    if len(argv) != 2 or argv[0] not in {"witness", "proxy"}:
        sys.stderr.write(USAGE)
        return 2
    if argv[1] not in known:
        sys.stderr.write(f"no fault is called {argv[1]}; `python -m faults list` names them all\n")
        return 2
    if argv[0] == "proxy":
        if (kind := known[argv[1]].kind) != "proxy":
            sys.stderr.write(f"{argv[1]} is a fault of kind {kind}; a proxy serves those of kind proxy\n")
            return 2
        with behind_proxy(os.environ, known[argv[1]]) as told:
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
            threading.Event().wait()
        return 0
    said = ask(known[argv[1]], os.environ)
    if isinstance(said, bool):
        return ON if said else OFF
    sys.stderr.write(said + "\n")
    return BROKEN


def ask(fault: Fault, environ: Mapping[str, str]) -> bool | str:
    """Whether the fault is active; a text if its witness cannot tell."""
    try:
        with Probe(environ) as probe:
            return fault.witness(probe)
    except (ProbeError, httpx.HTTPError, psycopg.Error) as error:
        return f"the witness of {fault.id} cannot tell: {type(error).__name__}: {error}"


def answers(known: Mapping[str, Fault], asked: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """What `serve` answers: `witness` with whether the fault is on, or a text; `proxy` with what a gate is told of one
    that serves from now on; `end` ends the proxies.
    """
    with ExitStack() as proxies:
        for one in asked:
            match one:
                case {"witness": name, "environ": environ}:
                    yield {"on": ask(known[name], environ)}
                case {"proxy": names, "environ": environ}:
                    several = [known[name] for name in names]
                    yield {"told": dict(proxies.enter_context(behind_proxy(environ, *several)))}
                case _:
                    proxies.close()
                    yield {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
