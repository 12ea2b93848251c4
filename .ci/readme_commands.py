"""Print the commands under the README's heading "Start", one a line: each fenced `sh` block there is one command."""

import re
import sys
from pathlib import Path

text = Path(sys.argv[1]).read_text(encoding="utf-8")
section = re.search(r"^## Start$(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
if section is None:
    sys.exit(f"{sys.argv[1]}: no heading 'Start' was found; the set-up commands belong under it")
for block in re.findall(r"^```sh\n(.*?)^```", section.group(1), re.DOTALL | re.MULTILINE):
    sys.stdout.write(" ".join(block.replace("\\\n", " ").split("\n")).strip() + "\n")
