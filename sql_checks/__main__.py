"""python -m sql_checks write-manifest|export|lint|docs: the tools around the SQL suites."""

import sys

from sql_checks.commands import main

sys.exit(main(sys.argv[1:]))
