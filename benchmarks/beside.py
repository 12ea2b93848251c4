"""Normal activity beside a run, by the names that `benchmarks.distance --beside` takes."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from gates.proof.healthy import beside
from gates.stack.stack import Stack

SITUATIONS: Mapping[str, Callable[[Stack], AbstractContextManager[None]]] = {
    "vacuum": beside.vacuum,
    "reader": beside.reader,
    "traffic": beside.neighbour,
    "restart": beside.restart,
}
