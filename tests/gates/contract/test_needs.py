"""`also` in contract.yaml names every area whose tables a check of another area uses, as its own text shows."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from gates import catalogue
from gates.contract.contract import contract
from sql_checks.spotfile import SPOT, read_spot

ROOT = Path(__file__).resolve().parents[3]
DRILLS = ROOT / "drills"
WORKBENCH = DRILLS / "workbench"
SPECS = {s.id: s for s in catalogue.load()}
FOUNDATION = {"gate", "replay", "tenancy", "dead-letters", "outbox"}
"""Areas whose tables every replay touches."""

CONTEXT = {"flags", "pause"}
"""A query reads these to know what is held; without them nothing is, so it needs neither."""

BY_TABLE = {"sql/spot/flags-decided-by-formula", "sql/spot/sequences-ahead"}
"""These ask whether a table is there, and judge that much less without it."""

AREAS = {name: r.area for name, r in contract().relations.items()} | {
    f.name: f.area for f in contract().functions.values()
}
NAMES = re.compile(r"\b(" + "|".join(sorted(AREAS, key=len, reverse=True)) + r")\b")
SETUP = {"company", "create", "remove", "late", "prompt", "until"}
"""Methods of every drill: what they touch, all need."""


def areas_in(text: str) -> set[str]:
    return {AREAS[name] for name in NAMES.findall(text)}


def rules() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "sql_checks" / "alerts").glob("*.yaml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            yield from ((f"alert/{rule['alert']}", rule["query"]) for rule in group["rules"])


def queries() -> Iterator[tuple[str, str]]:
    spots = [read_spot(path) for path in sorted(SPOT.glob("*.sql"))]
    # a look at the catalogue goes through the tables that are there
    yield from ((s.spec.id, s.violations + s.seen) for s in spots if s.reads == "rows")
    yield from rules()


def beyond(areas: set[str], check: str) -> set[str]:
    """The areas that the check does not need."""
    spec = SPECS[check]
    return set() if spec.area == "gate" else areas - FOUNDATION - {spec.area, *spec.also}


def test_a_query_names_no_table_of_an_area_that_its_check_does_not_need() -> None:
    """Where that area is not claimed its tables may not be there, and the query would fail or count nothing."""
    named = [(check, areas_in(re.sub(r"--[^\n]*", "", query)) - CONTEXT) for check, query in queries()]
    assert len(named) > 50
    assert [(c, more) for c, areas in named if c not in BY_TABLE and (more := beyond(areas, c))] == []


class Uses(ast.NodeVisitor):
    """The areas that a function's texts and queries name, and the functions that it uses."""

    def __init__(self) -> None:
        self.areas: set[str] = set()
        self.calls: set[str] = set()
        self.guarded: list[tuple[Uses, set[object]]] = []

    def visit_If(self, node: ast.If) -> None:
        """What stands under `if scene.claims(AREA)` needs no claim of that area."""
        test = node.test
        if not (isinstance(test, ast.Call) and ast.unparse(test.func).endswith(".claims")):
            self.generic_visit(node)
            return
        within = Uses()
        for statement in node.body:
            within.visit(statement)
        self.guarded.append((within, {a.value for a in test.args if isinstance(a, ast.Constant)}))
        for other in node.orelse:
            self.visit(other)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.areas |= areas_in(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        self.calls.add(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name) and node.value.id in {"scene", "limit", "bench", "self"}:
            self.calls.add(node.attr)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        named = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        if isinstance(node.func, ast.Name) and node.func.id == "query" and isinstance(named, str):
            self.areas |= areas_in((WORKBENCH / "sql" / f"{named}.sql").read_text(encoding="utf-8"))
        self.generic_visit(node)


def functions(*paths: Path) -> dict[str, Uses]:
    found: dict[str, Uses] = {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name not in SETUP:
                uses = found.setdefault(node.name, Uses())
                for statement in node.body[1 if ast.get_docstring(node) else 0 :]:
                    uses.visit(statement)
    return found


def reached(uses: Uses, known: dict[str, Uses], way: tuple[Uses, ...] = ()) -> set[str]:
    """The areas that something names, or what it calls."""
    if uses in way:
        return set()
    called = [reached(known[call], known, (*way, uses)) for call in uses.calls if call in known]
    guarded = [reached(within, known, (*way, uses)) - areas for within, areas in uses.guarded]
    return uses.areas.union(*called, *guarded)


SHARED = functions(WORKBENCH / "tenant_data.py", WORKBENCH / "scene.py", WORKBENCH / "audit_chain.py")


def drills() -> Iterator[tuple[str, set[str]]]:
    """Each drill that is one check, with the areas of the tables that it, or what it calls, names."""
    for path in sorted(DRILLS.rglob("test_*.py")):
        known = SHARED | functions(path)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            text = " ".join(map(ast.unparse, node.decorator_list)) if isinstance(node, ast.FunctionDef) else ""
            found = re.search(r"'(drill/[a-z-]+/[a-z0-9-]+)'", text)
            if found and isinstance(node, ast.FunctionDef):
                yield found[1], reached(known[node.name], known)


def test_a_drill_touches_no_table_of_an_area_that_it_does_not_need() -> None:
    """Where that area is not claimed the drill would blame its own promise for it, or be unknown for ever."""
    touched = list(drills())
    assert len(touched) > 100
    assert [(c, more) for c, areas in touched if (more := beyond(areas - {"rate-limit"}, c))] == []


def test_a_drill_that_waits_for_deliveries_needs_the_outbox() -> None:
    """Without the claim nobody says that anything is delivered."""
    waiting = [s for s in SPECS.values() if "drill/outbox/delivered-once" in s.after]
    assert waiting
    assert [s.id for s in waiting if "outbox" not in {s.area, *s.also}] == []
