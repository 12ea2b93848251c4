"""A program that answers lines: its start is paid once, and what it does not answer is an error that says why."""

import os
import sys

import pytest

from gates.proof.workbench.servant import Servant
from gates.stack.errors import StackError

ECHO = """
import json, os, sys, time
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("die"):
        sys.exit("I was told to")
    time.sleep(asked.get("wait", 0))
    print(json.dumps({"pid": os.getpid()}), flush=True)
"""


def test_a_program_is_started_once_and_anew_after_it_failed() -> None:
    """Its last words are in the error; one that is too late is ended."""
    servant = Servant((sys.executable, "-c", ECHO), os.environ)
    try:
        first = servant.ask({}, 20)
        assert servant.ask({}, 20) == first
        with pytest.raises(StackError, match="I was told to"):
            servant.ask({"die": True}, 20)
        second = servant.ask({}, 20)
        assert second != first
        with pytest.raises(StackError, match=r"within 0 s"):
            servant.ask({"wait": 60}, 0.1)
        assert servant.ask({}, 20) not in (first, second)
    finally:
        servant.close()
