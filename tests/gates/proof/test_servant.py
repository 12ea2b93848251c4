"""A program that answers line by line: it starts once, and a missing answer is an error with its cause."""

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
    """It is restarted after a crash or a timeout; the error quotes its last words or the limit."""
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
