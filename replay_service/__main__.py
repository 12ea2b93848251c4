"""`python -m replay_service migrate | serve | work`: one process, one job."""

import os
import sys
from collections.abc import Sequence

USAGE = "usage: python -m replay_service migrate | serve [options] | work\n"


def main(argv: Sequence[str]) -> int:
    """Dispatch to the job. Imports are lazy: a migration needs no HTTP server, a worker neither."""
    job, rest = (argv[0], argv[1:]) if argv else ("", ())
    if job == "migrate":
        from replay_service.migrate import main as migrate  # noqa: PLC0415

        return migrate(rest, os.environ)
    if job == "work":
        from replay_service.worker.process import main as work  # noqa: PLC0415

        return work(rest, os.environ)
    if job == "serve":
        from replay_service.app import main as serve  # noqa: PLC0415

        return serve(list(rest))
    sys.stderr.write(USAGE)
    return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
