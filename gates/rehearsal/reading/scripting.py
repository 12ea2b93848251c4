r"""What psql keeps while it runs a file: the values that `\set` gives, and the branches of `\if` that it takes."""

import re
from dataclasses import dataclass, field

from gates.rehearsal.reading.rewriting import variable_of
from gates.rehearsal.reading.splitting import SqlStatement

_CONDITION = re.compile(r"\\(if|elif|else|endif)\b\s*(.*?)\s*$")
_DEFINED = re.compile(r":\{\?(\w+)\}")
_VALUE = re.compile(r":(?:'(\w+)'|(\w+))")
_TRUE, _FALSE = {"1", "true", "on", "yes", "t", "y"}, {"0", "false", "off", "no", "f", "n"}


@dataclass
class _Branch:
    runs: bool
    over: bool


@dataclass
class Script:
    r"""The state of one file. `undecided`: each `\if` whose condition is not known; all of its branches run."""

    values: dict[str, str] = field(default_factory=dict)
    undecided: list[SqlStatement] = field(default_factory=list)
    _branches: list[_Branch] = field(default_factory=list)

    @property
    def runs(self) -> bool:
        return all(one.runs for one in self._branches)

    def take(self, meta: SqlStatement) -> None:
        """Process a psql command."""
        found = _CONDITION.match(meta.text)
        if found is None:
            if self.runs:
                self._set(meta)
            return
        word, outer = found[1], all(one.runs for one in self._branches[:-1])
        if word == "if":
            self._branches.append(_Branch(False, False))
            outer = all(one.runs for one in self._branches[:-1])
        if word == "endif":
            del self._branches[-1:]
        elif self._branches:
            self._decide(self._branches[-1], self._condition(meta, found[2]) if word != "else" and outer else True)

    def _set(self, meta: SqlStatement) -> None:
        if variable := variable_of(meta):
            self.values[variable[0]] = variable[1]
        elif unset := re.match(r"\\unset\s+(\w+)", meta.text):
            self.values.pop(unset[1], None)

    def _condition(self, meta: SqlStatement, text: str) -> bool | None:
        text = _DEFINED.sub(lambda m: str(m[1] in self.values).lower(), text)
        text = _VALUE.sub(lambda m: self.values.get(m[1] or m[2], m[0]), text).lower()
        if text not in _TRUE | _FALSE:
            self.undecided.append(meta)
            return None
        return text in _TRUE

    @staticmethod
    def _decide(branch: _Branch, holds: bool | None) -> None:
        branch.runs = not branch.over and holds is not False
        branch.over = branch.over or holds is True
