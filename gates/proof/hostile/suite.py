"""The suite `hostile`: every attack as a trial, at most two servers at once, each part on deployments of its own."""

import importlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from gates.errors import CannotWork
from gates.evidence import TargetKind
from gates.proof.degenerate import always
from gates.proof.hostile import crowd, kills
from gates.proof.hostile.acts import ACTS
from gates.proof.hostile.ailments import AILMENTS, suffer
from gates.proof.hostile.arena import POLICY, Arena, HostileRun
from gates.proof.hostile.copies import Copies
from gates.proof.hostile.impostors import Impostor, impostors
from gates.proof.hostile.kills import DRILL_KILLS, kill_drills
from gates.proof.hostile.partitions import PARTITIONS, Hand
from gates.proof.hostile.sieges import SIEGES, Siege, besiege
from gates.proof.trial import ProofPart, Trial, broken, trial
from gates.proof.workbench import programs
from gates.proof.workbench.bench import TROUBLES, OpenBench
from gates.proof.workbench.lanes import side_by_side
from gates.proof.workbench.servers import Reply
from gates.stack.errors import StackError

KEPT = "kept"
"""Instead of a decision: afterwards everything is as the command says, and nobody is blocked."""
SEED = 20260101
MUTATIONS = 10_000
AT_ONCE = 2
MOST_FOUND = 12
FAILURES = (*TROUBLES, CannotWork)

KILLED_DRILLS = ("kills-drill", (KEPT,), f"`gate drill` is killed at {DRILL_KILLS} random instants, on live rows")
MUTATED = ("mutations", (KEPT,), f"{MUTATIONS} answers and cells with bytes changed: no crash, no better decision")
ALONE = (KILLED_DRILLS, MUTATED)


@dataclass(frozen=True, slots=True)
class OnTheHand:
    """An attack on an operator's command. `attack` returns what was wrong, one line each."""

    name: str
    said: str
    attack: Callable[[Hand], list[str]]


def on_the_hand() -> tuple[OnTheHand, ...]:
    """The attacks: broken networks, kills, many gates, people."""
    found = [OnTheHand(one.name, one.said, partial(Hand.partition, one=one)) for one in PARTITIONS]
    found += [
        OnTheHand(
            f"kills-{act.name}",
            f"`gate {act.name}` is killed at {kills.KILLS} random instants",
            partial(kills.kill_act, act=act, seed=SEED),
        )
        for act in ACTS
    ]
    found += [OnTheHand(f"database-{a.name}", f"each act meets: {a.said}", partial(suffer, one=a)) for a in AILMENTS]
    found.append(
        OnTheHand("crowd", f"{crowd.GATES} gates promote {crowd.GATES} releases at the same moment", crowd.one_step)
    )
    found += [
        OnTheHand(
            f"person-{change.name}-in-{act.name}",
            f"a person {change.said} before each statement of `gate {act.name}`",
            partial(crowd.person, act=act, change=change),
        )
        for act, change in crowd.PEOPLE
    ]
    return tuple(found)


def names() -> list[tuple[str, tuple[str, ...], str]]:
    """Every trial of the suite: name, the allowed decisions, description."""
    servers = [(one.name, tuple(d.value for d in one.allowed), one.said) for one in impostors()]
    sieges = [(f"siege-{one.name}", tuple(d.value for d in one.allowed), one.said) for one in SIEGES]
    return [*servers, *sieges, *((one.name, (KEPT,), one.said) for one in on_the_hand()), *((*one,) for one in ALONE)]


def spread(wanted: Sequence[str], sample: int) -> set[str]:
    """The given number of names, spread evenly; all of them for 0."""
    count = min(sample or len(wanted), len(wanted))
    return {wanted[i * len(wanted) // count] for i in range(count)}


@dataclass(frozen=True, slots=True)
class HostileSuite:
    """What the suite needs; see Trials. sample: at most so many trials, 0 for all."""

    open_bench: OpenBench
    out: Path
    wants: Callable[[str], bool]
    done: Callable[[Trial], None]
    sample: int = 0

    def run(self) -> None:
        """Run the servers first, then what needs only databases."""
        chosen = spread([name for name, _, _ in names() if self.wants(f"{ProofPart.HOSTILE}/{name}")], self.sample)
        self._meet([one for one in impostors() if one.name in chosen])
        for siege in SIEGES:
            if f"siege-{siege.name}" in chosen:
                self.done(self._besieged(siege))
        self._attack_the_hand([one for one in on_the_hand() if one.name in chosen])
        if KILLED_DRILLS[0] in chosen:
            self.done(_carried_out(KILLED_DRILLS[0], KILLED_DRILLS[2], self._kill_drills))
        if MUTATED[0] in chosen:
            self.done(_carried_out(MUTATED[0], MUTATED[2], _mutate))

    # --- servers -------------------------------------------------------------------------------------------------

    def _meet(self, servers: Sequence[Impostor]) -> None:
        """Run each hostile server before one of two healthy deployments."""
        if not servers:
            return
        try:
            with ExitStack() as benches:
                free: SimpleQueue[Arena] = SimpleQueue()
                for _ in range(min(AT_ONCE, len(servers))):
                    bench = benches.enter_context(self.open_bench(TargetKind.STAGING))
                    free.put(Arena(bench, self._folder(), self._policy()))
                with side_by_side(AT_ONCE) as pool:
                    for future in as_completed([pool.submit(_trial_of, one, free) for one in servers]):
                        self.done(future.result())
        except StackError as error:
            for one in servers:
                self.done(broken(ProofPart.HOSTILE, one.name, one.said, one.allowed, error))

    def _folder(self) -> Path:
        folder = self.out / ProofPart.HOSTILE.value
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _policy(self) -> Path:
        path = self._folder() / "gate.yaml"
        path.write_text(POLICY, encoding="utf-8")
        return path

    # --- databases, drills ---------------------------------------------------------------------------------------

    def _besieged(self, one: Siege) -> Trial:
        as_server = Impostor(f"siege-{one.name}", one.said, always(Reply()), one.allowed)
        try:
            with self.open_bench(TargetKind.STAGING) as bench:
                return judged(as_server, besiege(bench, one, self._folder(), self._policy()))
        except FAILURES as error:
            return broken(ProofPart.HOSTILE, as_server.name, one.said, one.allowed, error)

    def _kill_drills(self) -> list[str]:
        with self.open_bench(TargetKind.REFERENCE) as bench:
            return kill_drills(bench, self._folder() / "kills-drill", SEED)

    # --- the operator's hand -------------------------------------------------------------------------------------

    def _attack_the_hand(self, attacks: Sequence[OnTheHand]) -> None:
        if not attacks:
            return
        try:
            with self.open_bench(TargetKind.STAGING) as bench:
                hand = Hand(Copies(bench), programs.clean(bench.environ, {}))
                for one in attacks:
                    self.done(_carried_out(one.name, one.said, partial(one.attack, hand)))
        except StackError as error:
            for one in attacks:
                self.done(broken(ProofPart.HOSTILE, one.name, one.said, (), error))


def _mutate() -> list[str]:
    """Imported only here: the module needs pytest and the drills, which no other command needs."""
    report = importlib.import_module("gates.proof.hostile.mutations").mutations(SEED, MUTATIONS)
    return [] if report.holds else [*report.crashes, *report.better, f"{report.mutations} mutations"]


def _trial_of(one: Impostor, free: SimpleQueue[Arena]) -> Trial:
    arena = free.get()
    try:
        return judged(one, arena.meet(one))
    except FAILURES as error:
        return broken(ProofPart.HOSTILE, one.name, one.said, one.allowed, error)
    finally:
        free.put(arena)


def judged(one: Impostor, seen: HostileRun) -> Trial:
    """The trial: the decision must be allowed, and nothing else wrong."""
    made = trial(ProofPart.HOSTILE, one.name, one.said, one.allowed, seen.run)
    found = [*([] if made.ok else [made.reason]), *seen.found]
    return replace(made, ok=not found, reason="; ".join(found[:MOST_FOUND]) or made.reason, unpassed=())


def _carried_out(name: str, said: str, attack: Callable[[], list[str]]) -> Trial:
    """A trial that is right if nothing was found."""
    started = time.monotonic()
    try:
        found = attack()
    except FAILURES as error:
        return broken(ProofPart.HOSTILE, name, said, (), error)
    reason = "; ".join(found[:MOST_FOUND]) or "everything is as it says"
    seconds = round(time.monotonic() - started, 1)
    return Trial(ProofPart.HOSTILE, name, said, (KEPT,), "" if found else KEPT, not found, reason, seconds)
