"""The fault that changes nothing: the whole gate must let it pass."""

from faults.catalogue import Fault, declare
from faults.probe import Probe


def _nothing_is_on(probe: Probe) -> bool:
    """Never on; a deployment that cannot be probed is an error all the same."""
    return probe.get("/healthz").status_code != 200


declare(Fault("noop/nothing", "Nothing.", "none", _nothing_is_on, decision="promote"))
