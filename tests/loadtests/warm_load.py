"""`python -m tests.loadtests.warm_load`: a load for each line of JSON, forked with Locust imported; answers its pid.

A line has `words` (arguments of `python -m loadtests`), `environ`, and the files for what it says (`said`) and for its
exit code (`code`). Where it has a `text`, that is run with the words. What the start of the program does is shown by
real starts (test_load_stage.py, test_leftovers.py). Where it has `idle`, a late schedule is no doubt: it says how busy
the tests' machine is.
"""

import json
import math
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from gevent.monkey import get_original

from loadtests.__main__ import program
from loadtests.judgement import validity


def become(asked: Mapping[str, Any]) -> NoReturn:
    """Run the load in this forked process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    said = os.open(asked["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, said), (2, said)):
        os.dup2(source, stream)
    os.environ.clear()
    os.environ.update(asked["environ"])
    if asked["idle"]:
        mock.patch.object(validity, "LATENESS_LIMIT_MS", math.inf).start()
    code = _said_by(asked["text"], asked["words"]) if asked["text"] else program(asked["words"])
    Path(asked["code"]).write_text(str(code), encoding="ascii")
    os._exit(code)


def _said_by(text: str, words: list[str]) -> int:
    exec(text, {"words": words})  # noqa: S102  -- a test's own
    sys.stdout.flush()
    return 0


def main() -> None:
    """Serve until stdin ends. Nothing here may create Locust's event loop, which a fork would share."""
    fork = get_original("os", "fork")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    for line in sys.stdin:
        child = fork()
        if child == 0:
            become(json.loads(line))
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
