"""`python -m gates.stack`: the same as `gate up`."""

from __future__ import annotations

import argparse
import os
import sys

from gates.stack.up import add_arguments, options_of, up


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gates.stack", description="Bring up the reference deployment.")
    add_arguments(parser)
    return up(options_of(parser.parse_args()), os.environ, sys.stdout, sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
