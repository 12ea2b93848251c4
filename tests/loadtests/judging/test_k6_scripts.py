"""Whole k6 scripts: what is read is what the real k6 reads (`k6 inspect`); what would need an engine is refused."""

import json
import subprocess
from pathlib import Path

import pytest

from loadtests.engine.metrics import TYPES
from loadtests.thresholds.file import ThresholdsFileError, parse_thresholds
from loadtests.thresholds.literal import LiteralError, read_literal
from tests.loadtests.k6_program import k6_binary

REAL = "{ thresholds: { http_req_failed: ['rate<0.01'] } }"
LOOSE = "{ thresholds: { http_req_failed: ['rate<1'] } }"
GOOD = f"export const options = {REAL};\n"
MAIN = "export default function () { }\n"
COMMON = "module.exports.default = function () { };\n"

READ = {
    "block comment before": f"/* export const options = {LOOSE}; */\n{GOOD}",
    "block comment over lines": f"/*\nexport const options = {LOOSE};\n*/\n{GOOD}",
    "line comment before": f"// export const options = {LOOSE};\n{GOOD}",
    "line comment after": f"{GOOD}// export const options = {LOOSE};\n",
    "a comment that seems to end in a string": f"const a = '/*';\n{GOOD}const b = '*/';\n",
    "a string": f'const a = "export const options = {LOOSE}";\n{GOOD}',
    "a string with escaped quotes": f"const a = '\\'; export const options = {LOOSE.replace(chr(39), '')}';\n{GOOD}",
    "a template": f"const a = `\nexport const options = {LOOSE};\n`;\n{GOOD}",
    "a template in a template": f"const a = `${{`\nexport const options = {LOOSE};\n`}}`;\n{GOOD}",
    "a regular expression": f"const a = /export const options = `[/`]/;\n{GOOD}",
    "a division that is none": f"const a = 4 / 2, b = '/';\n{GOOD}",
    "an unused function": f"function f() {{\nconst options = {LOOSE}; options.vus = 3;\nreturn options; }}\n{GOOD}",
    "a parameter of the same name": f"function f(options) {{ options.vus = 3; }}\n{GOOD}",
    "another variable first": f"const first = {LOOSE};\nconst options2 = {LOOSE};\n{GOOD}",
    "let": f"export let options = {REAL};\n",
    "var and others": f"export var a = 1, options = {REAL};\n",
    "no semicolon": f"export const options = {REAL}\n",
    "one line": f"import http from 'k6/http'; export const options = {REAL}; ",
    "over lines": f"export const\n  options\n  =\n{REAL}\n",
    "comments between": f"export /* a */ const options /* b */ = /* c */ {REAL} // d\n",
    "exported by name": f"const options = {REAL};\nexport {{ options }};\n",
    "exported by another name": f"const own = {REAL};\nconst options = {LOOSE};\nexport {{ own as options }};\n",
    "commonjs": f"module.exports.options = {REAL};\n{COMMON}",
    "commonjs, short": f"exports.options = {REAL};\n{COMMON}",
    "typescript": f"import {{ Options }} from 'k6/options';\nexport const options: Options = {REAL};\n",
    "typescript, as": f"export const options = {REAL} as any;\n",
    "typescript, satisfies": f"export const options = ({REAL}) satisfies object;\n",
    "hash bang": f"#!/usr/bin/env k6\n{GOOD}",
    "escapes": "export const options = { thresholds: { 'http_req\\x5ffail\\u0065d': ['rate<0.0\\u{31}'] } };\n",
    "numbers": f"export const options = {REAL[:-1]}, vus: 0b11, duration: '1s' }};\n",
    "braces in strings": "export const options = { thresholds: { 'http_req_duration{name:a}': ['max<1'] } };\n",
}
REFUSED = {
    "nothing exported": (f"const options = {LOOSE};\nconst a = 1;\n", "no exported options"),
    "only a comment": (f"// export const options = {LOOSE};\n", "no threshold"),
    "only a template": (f"const a = `\nexport const options = {LOOSE};\n`;\n", "must be an object"),
    "a function's own": (f"function f() {{ const options = {LOOSE}; }}\n", "no exported options"),
    "given twice": (f"{GOOD}module.exports.options = {LOOSE};\n", "given twice (first on line 1)"),
    "changed": (f"export let options = {LOOSE};\noptions.thresholds = {{}};\n", "are changed here"),
    "replaced": (f"export let options = {LOOSE};\noptions = {REAL};\n", "are changed here"),
    "assigned to": (f"{GOOD}Object.assign(options, {LOOSE});\n", "are changed here"),
    "a call": ("export const options = make();\n", "not 'make()'"),
    "a variable": ("const a = {};\nexport const options = a;\n", "not 'a'"),
    "a spread": (f"const a = {LOOSE};\nexport const options = {{ ...a }};\n", "a key was expected"),
    "a condition": (f"export const options = __ENV.X ? {LOOSE} : {REAL};\n", "not '__ENV.X"),
    "taken apart": ("export const { options } = require('./a');\n", "taken out of another object"),
    "another file's": ("export { options } from './a.js';\n", "another file"),
    "without a value": ("export let options;\n", "without a value"),
    "a computed key": ("export const options = { ['thresholds']: {} };\n", "a key was expected"),
    "a getter": ("export const options = { get thresholds() { return {}; } };\n", "a key was expected"),
    "an open comment": (f"{GOOD}/* no end", "is missing before this"),
    "an open template": (f"{GOOD}const a = `", "is missing before this"),
    "an octal": ("export const options = { vus: 010 };\n", "no number"),
    "half a character": ("export const options = { vus: '\\ud83d' };\n", "lone surrogate"),
    "too deep": ("export const options = " + "[" * 40 + "]" * 40, "deeper than 32"),
}


def thresholds(script: str) -> dict[str, list[str]]:
    read = parse_thresholds(script, "s.js", TYPES).thresholds.by_metric
    return {str(key): [one.expression.source for one in found] for key, found in read.items()}


@pytest.mark.parametrize("kind", READ)
def test_a_script_is_read_as_k6_reads_it(kind: str, tmp_path: Path) -> None:
    """The declaration that counts is found, whatever else looks like one."""
    binary = k6_binary()
    if binary is None:
        pytest.skip("no k6 binary on PATH; the development extra brings one")
    script = tmp_path / ("s.ts" if "typescript" in kind else "s.js")
    script.write_text(READ[kind] + ("" if COMMON in READ[kind] else MAIN), encoding="utf-8")
    command = [binary, "inspect", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert thresholds(READ[kind] + MAIN) == json.loads(done.stdout)["thresholds"]


@pytest.mark.parametrize("kind", REFUSED)
def test_what_needs_an_engine_is_refused_with_its_place(kind: str) -> None:
    """Never half a set of options, and never those of a comment."""
    script, words = REFUSED[kind]
    with pytest.raises(ThresholdsFileError) as caught:
        thresholds(script)
    assert str(caught.value).startswith("s.js:"), str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_a_script_that_was_cut_off_is_no_other_script(cut: int) -> None:
    """Any beginning of a script is refused, or says exactly what the whole says."""
    script = READ["a template"] + f"// {LOOSE}\n{MAIN}"
    try:
        found = read_literal(script[:cut])
    except LiteralError:
        return
    assert not script[:cut].strip() or found.value == read_literal(script).value or "export const" not in script[:cut]
