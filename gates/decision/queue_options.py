"""The options of a queue in gate.yaml: `contract: {preset: pg-boss, options: {...}}`."""

from collections.abc import Sequence

from gates.contract.queues import ProbeOptions, QueueOptions, QueuePreset
from gates.errors import raise_all
from gates.evidence import Severity
from gates.inputs.shapes import Anything, Fields, ListOf, MapOf, Number, Text, nearest
from gates.inputs.strict_yaml import YamlNode

NAME = Text(r"[^\x00]{1,63}", "the name of a schema, up to 63 characters")
LIMITS = Fields({s.value: (Number(0, 1e12, whole=False), f"The {s.value} limit.") for s in Severity})
PROBE = Fields(
    {
        "name": (Text(), "The queue, task or entrypoint whose jobs the gate may enqueue."),
        "queue": (Text(), "The queue of the task, where the library has both."),
        "payload": (Anything(), "What the job is given."),
        "statement": (
            Text(),
            "Your own statement that enqueues one job and gives its id as `id`; `%(payload)s` is text.",
        ),
        "within_s": (Number(0.1, 3600, whole=False), "A job must be worked off in so many seconds."),
        "rate": (Number(0.1, 1000, whole=False), "Jobs a second."),
        "seconds": (Number(1, 600, whole=False), "For so long jobs are enqueued."),
    },
    needed=("name",),
)
OPTIONS = Fields(
    {
        "schema": (NAME, "The schema of the library's tables."),
        "prefix": (Text(r"[A-Za-z_][A-Za-z0-9_]{0,60}", "letters, digits and _"), "What its tables are called by."),
        "tenant": (Text(), "SQL that gives the tenant of a job `j`, like j.data->>'company_id'."),
        "max_run_time_s": (Number(0.1, 604_800, whole=False), "A job that runs for longer is stuck."),
        "leave_out": (ListOf(Text()), "Queues that are not judged."),
        "limits": (
            MapOf(LIMITS, r"[a-z]+(-[a-z]+)*", "the name of a check of queues, like lag"),
            "Limits by check, like `lag: {page: 10, warn: 5}`.",
        ),
        "probe": (PROBE, "The job that the gate may enqueue; without it the gate only reads."),
        "observe_s": (Number(1, 600, whole=False), "Without a probe, for so long the gate waits for a job to end."),
    }
)


def queue_options(preset: QueuePreset, node: YamlNode | None) -> QueueOptions:
    """Read the options. Raise ConfigError (file:line:column) if they are wrong for this preset."""
    if node is None:
        return QueueOptions()
    values = OPTIONS.read(node)
    prefix = node.member("prefix")
    if prefix is not None and preset.prefix is None:
        raise prefix.place.error("a prefix", f"none: the tables of {preset.title} have none", "Remove it")
    probe = values.get("probe")
    if probe is not None:
        probe_node = node.member("probe") or node
        if preset.probe is None:
            said = f"a probe, but {preset.title} does not show the end of a job"
            raise probe_node.place.error(said, "no probe: the gate waits for a job of somebody's", "Remove it")
        payload = probe.get("payload")
        values["probe"] = ProbeOptions(**{**probe, "payload": payload.as_value() if payload else {}})
    limits = {name: given for _, name, given in values.get("limits", ())}
    return QueueOptions(**{**values, "limits": limits})


def check_limits(node: YamlNode | None, known: Sequence[str]) -> None:
    """Raise ConfigError for limits of anything that is no check of queues."""
    limits = node.member("limits") if node is not None else None
    names = tuple(check.partition("/")[2] for check in known if check.startswith("queue/"))
    raise_all(
        child.place.error(f"limits for {name!r}", ", ".join(names), nearest(name, names))
        for child, name, _ in (MapOf(LIMITS).read(limits) if limits is not None else ())
        if name not in names
    )
