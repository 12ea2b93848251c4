"""Drafts `contract:` of a deployment with a known queue, and lists what only a person can know of it. Pure."""

from collections.abc import Sequence

from gates.contract.queues import Queue, QueueOptions, presets
from gates.doctor.draft.lines import Lines, comment, scalar
from gates.doctor.matching.presets import FoundPreset

OPEN = {
    "": "options that nothing here tells (docs/presets.md); add those that you need:",
    "tenants": "  tenant: SQL over a job j, such as {tenant}; without it no tenant is judged apart",
    "running": "  max_run_time_s: 3600, for how long a job may run",
    "waiting": "  leave_out: [NAME], queues that may lag, such as bulk mail, imports, and what is paused on purpose",
    "oldest": "  limits: {{standstill: {{page: 180}}}}, and those of lag, where workers look once a minute as cron's",
    "probe": "  probe: {{name: NAME}}, a {names} whose job does nothing, for the gate to enqueue; else it waits",
}
"""What only a person can know: a notion of the presets, and its line in the draft, if the preset has the notion."""


def queue_lines(found: Sequence[FoundPreset]) -> Lines:
    """The lines below `contract:`. Of several queues the first is drafted, and the others are named."""
    one, *others = found
    yield f"  preset: {one.name}{comment(f'sure: {one.reason}')}"
    if said := options_of(one):
        yield f"  options: {{{said}}}"
    preset = presets()[one.name]
    lacking = {*preset.absent} | ({"oldest"} if "waiting" in preset.absent else set())
    lacking |= ({"tenants"} if "j." not in preset.tenant else set()) | (set() if preset.probe else {"probe"})
    for notion, line in OPEN.items():
        if notion not in lacking:
            said = line.format(tenant=preset.tenant, names=preset.probe.names if preset.probe else "")
            yield f"  # {said}"
    if others:
        yield "  # one gate.yaml judges one queue; these are here, too, each for a file of its own (--policy FILE):"
    for other in others:
        said = options_of(other)
        yield f"  #   preset: {other.name}{f', options: {{{said}}}' if said else ''}{comment(other.reason)}"


def queues_of(found: Sequence[FoundPreset]) -> list[Queue]:
    """The queues that were found, each with its place."""
    return [Queue(presets()[f.name], QueueOptions(f.schema, f.prefix)) for f in found if f.name in presets()]


def options_of(found: FoundPreset) -> str:
    """Differences from the library's defaults."""
    said = {"schema": found.schema if found.is_elsewhere else "", "prefix": found.prefix}
    return ", ".join(f"{name}: {scalar(value)}" for name, value in said.items() if value)
