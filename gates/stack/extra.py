"""The extra `reference`: what the embedded deployment needs and the gate of a remote target does not."""

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from gates.stack.errors import StackError

INSTALL = "pip install 'replaygate[reference]'"


def lacking() -> tuple[str, ...]:
    """The packages of the extra that are missing here, or have an unsuitable version."""
    wanted = (Requirement(line) for line in requires("replaygate") or ())
    of_extra = (r for r in wanted if r.marker and not r.marker.evaluate() and r.marker.evaluate({"extra": "reference"}))
    return tuple(one.name for one in of_extra if not _met(one))


def insist() -> None:
    """Raise StackError if something is missing: one line, with the command."""
    if missing := lacking():
        raise StackError(
            f"The embedded reference needs {', '.join(missing)}, which this Python environment lacks; allowed: the "
            f"whole extra `reference`. Run: {INSTALL}"
        )


def _met(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False
