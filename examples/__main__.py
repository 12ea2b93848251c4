"""`python -m examples NAME`: one example until it is interrupted.

The first line of stdout is one JSON object, the variables for the gate; everything else goes to stderr.
"""

import argparse
import json
import os
import signal
import sys
import threading
from types import FrameType

from examples.defects import EXAMPLES
from examples.ground import SIGNALS, ExampleError, ground
from gates.stack.errors import StackError


def main(argv: list[str]) -> int:
    """Exit code: 128 and the signal's number; 4 where the example does not come up."""
    parser = argparse.ArgumentParser(prog="python -m examples", description=__doc__)
    parser.add_argument("name", choices=sorted(EXAMPLES))
    name = parser.parse_args(argv).name
    ended, number = threading.Event(), [0]

    def take(signal_number: int, _frame: FrameType | None) -> None:
        number[0] = signal_number
        ended.set()

    for wanted in SIGNALS:
        signal.signal(wanted, take)
    try:
        with ground(os.environ) as place:
            variables = EXAMPLES[name](place, (), ())
            print(json.dumps(variables), flush=True)
            print(f"{name}: up; logs in {place.run.logs}; Ctrl-C ends it", file=sys.stderr)
            ended.wait()
    except (ExampleError, StackError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 4
    print(f"{name}: down; nothing is left", file=sys.stderr)
    return 128 + int(signal.Signals(number[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
