"""Rules of style that no linter knows. One test a rule: it lists every place that breaks it."""

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sources import FILES, ROOT, below, nodes_of, relative, text_of

MOST_LINES, MOST_FUNCTION_LINES = 400, 80
VAGUE = {"utils", "helpers", "common", "misc", "base", "core", "models", "types", "constants"}
PRINTERS = {"gates/reports/console.py"}
PROGRAMS = {"gates/stack/forks.py", "gates/stack/launch.py", "gates/stack/sweep.py", "gates/proof/matrix/warm.py"}
"""Programs of their own: two write one line to stderr when they cannot start, two serve what started them."""
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
MEDIA = {"Inert", "Terminal", "Html", "Markdown", "Slack", "Markup"}
PLACE = r"(?:\0|%{1,2}s|\{\w*\})"
HAND_QUOTED = re.compile(
    rf'"{PLACE}"\s*\.|\.\s*"{PLACE}"|format\(\s*\'[^\']*"{PLACE}"'
    rf'|\b(?:from|join|into|update|table|role|schema|on|as|by)\s+"{PLACE}"',
    re.IGNORECASE,
)
"""A place for a name between quotes of our own: a name that holds a quote ends them, and its rest is SQL."""
Rule = Callable[[Path], Iterator[str]]


def hold(rule: Rule, files: list[Path]) -> None:
    """Fail with every place that breaks the rule."""
    assert files
    if broken := [f"{relative(path)}: {said}" for path in files for said in rule(path)]:
        pytest.fail("\n".join(broken))


def calls(path: Path) -> list[ast.expr]:
    return [node.func for node in nodes_of(path) if isinstance(node, ast.Call)]


def bad_form(path: Path) -> Iterator[str]:
    tree, text = nodes_of(path)[0], text_of(path)
    assert isinstance(tree, ast.Module)
    if path.stem in VAGUE:
        yield "the name says nothing"
    if text.strip() and not ast.get_docstring(tree):
        yield "a module opens with what lives here"
    if (lines := len(text.splitlines())) > MOST_LINES:
        yield f"{lines} lines; allowed: {MOST_LINES}"
    for node in nodes_of(path):
        if isinstance(node, FUNCTIONS):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MOST_FUNCTION_LINES:
                yield f"{node.name} has {length} lines; allowed: {MOST_FUNCTION_LINES}"


def printing(path: Path) -> Iterator[str]:
    name, text = relative(path), text_of(path)
    if any(isinstance(c, ast.Name) and c.id == "print" for c in calls(path)):
        yield "print; give the text to the console"
    if name.endswith("__main__.py") or name in PROGRAMS:
        return
    if "os.environ" in text and name != "gates/config.py":
        yield "os.environ; take the environment as an argument"
    if "sys.stdout" in text and name not in PRINTERS:
        yield "sys.stdout; give the text to the console"
    for call in calls(path):
        if (
            isinstance(call, ast.Attribute)
            and call.attr == "write"
            and ast.unparse(call.value).endswith(("stdout", "stderr"))
        ):
            yield f"{ast.unparse(call)}; give the text to the console"


def foreign_text(path: Path) -> Iterator[str]:
    if relative(path) == "gates/text/inert.py":
        return
    for node in nodes_of(path):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MEDIA:
            if len(node.args) != 1 or not isinstance(node.args[0], ast.Constant):
                yield f"{ast.unparse(node)[:80]}: give a literal, and foreign text to its format"
        elif isinstance(node, ast.ImportFrom) and node.module == "markupsafe":
            yield "markupsafe; gates.text.inert has a type for every medium"


def hand_quoted(path: Path) -> Iterator[str]:
    if path.suffix == ".sql":
        texts = [text_of(path)]
    else:
        nodes = nodes_of(path)
        texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(str(v.value) if isinstance(v, ast.Constant) else "\0" for v in node.values))
            elif isinstance(node, ast.Call) and ast.unparse(node).endswith(""".replace('"', '""')"""):
                yield "quotes are doubled by hand; psycopg.sql.Identifier writes a name"
    for text in texts:
        if found := HAND_QUOTED.search(text):
            yield f"{found[0]!r}: a name in quotes of our own; write it with %I, or psycopg.sql.Identifier"


def no_claim(path: Path) -> Iterator[str]:
    for node in nodes_of(path):
        if isinstance(node, FUNCTIONS) and node.name.startswith("test_") and not ast.get_docstring(node):
            yield f"{node.name} has no claim"


def sleeping(path: Path) -> Iterator[str]:
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom):
            found = node.module == "time" and any(alias.name == "sleep" for alias in node.names)
        else:
            found = isinstance(node, ast.Attribute) and ast.unparse(node) == "time.sleep"
        if found:
            yield "time.sleep; wait for a condition with tests.waiting.until"


def dated(path: Path) -> Iterator[str]:
    calls = (n for n in nodes_of(path) if isinstance(n, ast.Call) and ast.unparse(n.func) == "gzip.compress")
    for call in calls:
        if "mtime" not in {word.arg for word in call.keywords}:
            yield "gzip.compress with the time of now; the id of a test may hold it: say mtime=0"


def test_a_file_is_short_says_what_lives_in_it_and_is_not_vague() -> None:
    """Files of at most 400 lines, functions of 80, a docstring, a name with a meaning."""
    hold(bad_form, FILES)


def test_only_the_console_prints_and_only_config_reads_the_environment() -> None:
    """Everything else returns values and is given the environment."""
    hold(printing, below("gates"))


def test_text_of_a_medium_begins_as_a_literal() -> None:
    """What a run saw comes into it through `format`, `join` and `+` alone, which escape it; mypy sees the types."""
    hold(foreign_text, below("gates"))


def test_no_name_is_quoted_by_hand() -> None:
    """A name out of the target's catalogue is data: `%I`, `quote_ident` or `psycopg.sql.Identifier` writes it."""
    rooms = ("gates", "sql_checks", "drills", "loadtests")
    hold(hand_quoted, [*below(*rooms), *(p for room in rooms for p in sorted((ROOT / room).rglob("*.sql")))])


def test_a_test_says_its_claim() -> None:
    """Every test function opens with a docstring: the claim."""
    hold(no_claim, [p for p in FILES if p.name.startswith("test_")])


def test_no_test_sleeps() -> None:
    """A test waits for what it needs to see; the one module that stands still says where a pause is what is tested."""
    hold(sleeping, [p for p in below("tests") if relative(p) != "tests/waiting.py"])


def test_no_id_of_a_test_holds_the_time() -> None:
    """Workers that collect in different seconds must find the same tests."""
    hold(dated, below("tests"))


def test_a_class_name_means_one_thing() -> None:
    """Each public class name of the gate and its suites is defined once."""
    homes: dict[str, list[str]] = defaultdict(list)
    for path in below("gates", "drills", "loadtests", "sql_checks"):
        for node in nodes_of(path):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(relative(path))
    assert "Verdict" in homes
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (bad_form, "x = 1\n"),
        (printing, 'print("x")\n'),
        (printing, "import os\nos.environ\n"),
        (printing, 'import sys\nsys.stderr.write("x")\n'),
        (foreign_text, "Html(seen)\n"),
        (hand_quoted, """f'select from "{schema}"."{name}"'\n"""),
        (hand_quoted, """f'drop table "{name}"'\n"""),
        (hand_quoted, """'select * from "%s"' % name\n"""),
        (hand_quoted, """x = "select format('\\"%s\\"', relname)"\n"""),
        (hand_quoted, """'"' + name.replace('"', '""') + '"'\n"""),
        (no_claim, "def test_x(): pass\n"),
        (sleeping, "import time\ntime.sleep(1)\n"),
        (sleeping, "from time import sleep\n"),
        (dated, "gzip.compress(text)\n"),
    ],
)
def test_a_rule_sees_what_breaks_it(rule: Rule, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: each rule says something of a file that breaks it."""
    monkeypatch.setattr("tests.sources.ROOT", tmp_path)
    path = tmp_path / "one.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(pytest.fail.Exception, match=r"one\.py: ."):
        hold(rule, [path])
