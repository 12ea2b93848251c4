"""The SQL stage: spot checks and row-level security; in a whole run the alerts with them, before and after the load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gates.evidence import CheckSpec, TargetKind
from gates.stages.context import Context, StageReport
from gates.stages.suite import Suite, run

DATA = ("sql/",)
ALERTS = ("alert/",)


def sql(
    context: Context, prefixes: Sequence[str] = DATA, *, name: str = "sql", before: bool = False
) -> list[StageReport]:
    """Run the SQL checks with ids under `prefixes`. `before`: they are to be seen again after the load.

    Leaves out exactly the companies that this run created so far.
    """
    options = (*(f"--only={prefix}*" for prefix in prefixes), *(["--round=before"] if before else []))
    expected = context.applicable(prefixes)
    return [run(suite(context, name, expected, options), context)]


def suite(context: Context, name: str, expected: Sequence[CheckSpec], options: Sequence[str]) -> Suite:
    """The subprocess that runs what `options` select, with what gate.yaml says of folders, manifest and memory."""
    settings = context.settings
    context.companies.touch()
    options = [*options, f"--exclude-companies={context.companies}"]
    options += [f"--spot-folder={path}" for path in settings.spot_folders]
    options += [f"--alert-folder={path}" for path in settings.alert_folders]
    options.append(f"--state={_memory(context)}")
    if settings.require_checkpoint:
        options.append("--require-checkpoint")
    if settings.manifest is not None:
        options.append(f"--manifest={settings.manifest}")
    return Suite(name, "sql_checks", expected, settings.sql_timeout_s, tuple(options))


def _memory(context: Context) -> Path:
    """Where the suite remembers how far the audit trail was verified, one file a database; absolute.

    A reference that was brought up for this run is never met again: what is remembered of it stays with the results.
    """
    own = context.target.kind is TargetKind.REFERENCE
    return (context.out / "state" if own else context.settings.state).resolve()
