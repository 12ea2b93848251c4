"""The pages of the site that are made from the code, and the one that quotes its messages."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from gates import catalogue
from gates.cli import COMMANDS
from tests.places.command_lines import printed, refused
from tests.sources import ROOT, below, text_of

SOURCE = "\n".join(text_of(path) for path in below("gates", "drills", "sql_checks", "loadtests"))
TROUBLES = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md", *(ROOT / "docs").rglob("*.md")]
UNFINISHED = re.compile(r"the following arguments are required|expected (one|at least one) argument|\$TEST_COMPANY_ID")


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / ".ci" / "site_pages.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_setting_and_check_has_its_place(pages: ModuleType) -> None:
    """With its options, its bounds, its claim."""
    commands, policy, checks = pages.commands(), pages.policy(), pages.checks()
    assert sorted(re.findall(r"^### gate (\S+)$", commands, re.MULTILINE)) == sorted(COMMANDS)
    assert "--disruptive" in commands
    assert "| `bake_minutes` | whole number 0 to 43200 | The flag takes one step" in policy
    assert "| `[].check` |" in policy
    assert len(re.findall(r"^\| `", checks, re.MULTILINE)) == len(catalogue.load())


def test_the_site_has_what_its_pages_link_to(pages: ModuleType) -> None:
    """Runbooks and schemas outside of docs/, too."""
    found = {path.relative_to(ROOT).as_posix() for path in pages.linked()}
    assert {"README.md", "docs/ci/flagger.yaml", "sql_checks/alerts/runbooks.md"} <= found


def test_every_message_that_is_explained_is_one_of_the_gate() -> None:
    """A message that was reworded would be searched for in vain."""
    quoted = re.findall(r"^\| `([^`]+)` \|", TROUBLES, re.MULTILINE)
    whole = re.sub(r'"\s*\n\s*f?"', "", SOURCE)
    assert len(quoted) > 20
    assert [message for message in quoted if message not in whole] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_is_one_of_the_gate(page: Path) -> None:
    """Each is parsed; prose may name a command or an option without what must follow it."""
    complaints = {" ".join(words): refused(words) for words in printed(page.read_text(encoding="utf-8"))}
    wrong = {words: why for words, why in complaints.items() if why and not UNFINISHED.search(why)}
    assert wrong == {}
