"""The verdict in plain sentences, for every medium: what happened to whom, what was done, what to do now. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from gates.contract.contract import contract
from gates.contract.remedies import because, remedy_of
from gates.contract.scope import OWN
from gates.decision.assessment import DISTRUSTED
from gates.decision.floor import is_optional
from gates.decision.rules import RolloutPlan
from gates.evidence import VARIABLES, JsonValue
from gates.text.inert import Inert, Terminal
from gates.text.quantity import shown
from gates.verdict import SUPERSEDED, Decision, Finding, Verdict, grouped

Medium = TypeVar("Medium", bound=Inert)
MOST_AREAS = 2
OTHER_PATH = "drill/flags/outbox-off-takes-direct-path"
"""Where a rollback sends events, and the checks that saw that place broken."""
ABOUT = {"load/": "the service under load", "cohort/": "tenants with the flag beside the others"}
"""Checks of a whole deployment, which are about no single area."""


@dataclass(frozen=True, slots=True)
class Brief(Generic[Medium]):
    """What happened to whom, what was done about it and what to do now: in one sentence (empty for a stage alone), and
    then a sentence or two for each.
    """

    lead: Medium
    happened: Medium
    done: Medium
    now: Medium


def brief(medium: type[Medium], verdict: Verdict, promises: Mapping[str, str], plan: RolloutPlan) -> Brief[Medium]:
    """The verdict for people. promises: check -> what it promises and what a failure costs."""
    teller = _Teller(medium, verdict, promises, plan)
    return Brief(teller.lead(), teller.happened(), teller.done(), teller.now())


@dataclass(frozen=True, slots=True)
class _Teller(Generic[Medium]):
    medium: type[Medium]
    verdict: Verdict
    promises: Mapping[str, str]
    plan: RolloutPlan

    def _who(self, *, begins: bool = True) -> Medium:
        """The release and its target; begins: whether it begins a sentence."""
        v, medium = self.verdict, self.medium
        named = medium("Release") if begins else medium("release")
        plain = medium("The release") if begins else medium("the release")
        who = medium("{} {}").format(named, v.release) if v.release else plain
        return medium("{} on {}").format(who, v.target) if v.target else who

    def lead(self) -> Medium:
        """All in one sentence, without a detail."""
        medium, v = self.medium, self.verdict
        if v.stage is not None:
            return medium("")
        who, came_out, do = self._who(), self._came_out(), self._do_now()
        if v.contract.is_queue:
            return medium("{} {}: {}.").format(who, came_out, do)
        return medium("{} {}, and {}: {}.").format(who, came_out, self._flag_now(), do)

    def _came_out(self) -> Medium:
        medium, v = self.medium, self.verdict
        causes = grouped(v.deciding)
        broken = [group for group in causes if causes[0][0].outcome == group[0].outcome == "fail"]
        if v.decision is Decision.PROMOTE:
            return self._kept()
        if not broken:
            return medium("passed its checks") if v.action.holds and not v.deciding else self._unjudged(causes)
        promises = medium("one promise") if len(broken) == 1 else medium("{} promises").format(len(broken))
        about = _areas(group[0].check for group in broken)
        promises = medium("{} ({})").format(promises, about) if about else promises
        had = v.action.from_percent
        if v.decision is not Decision.ROLLBACK or not had:
            return medium("broke {}").format(promises)
        whom = medium("every tenant") if had == 100 else medium("the {} % of tenants that had it").format(had)
        return medium("broke {} to {}").format(promises, whom)

    def _unjudged(self, causes: Sequence[Sequence[Finding]]) -> Medium:
        medium = self.medium
        first = causes[0][0] if causes else None
        why = because(first.check, first.said) if first else ""
        if first and first.check == VARIABLES:
            why = first.said.partition(":")[0]  # it names them
        if first and first.said.startswith(DISTRUSTED):
            why = first.said.partition(". ")[0]
        more = f" and {len(causes) - 1} more cause{'s' * (len(causes) > 2)}" if len(causes) > 1 else ""
        return medium("could not be judged ({}{})").format(why, more) if why else medium("could not be judged")

    def _kept(self) -> Medium:
        """What a promote kept, and how much of it the policy lets pass: noted, waived or not required."""
        medium, v = self.medium, self.verdict
        listed = [f.outcome for f in v.findings if not (f.outcome == "unknown" and is_optional(f.check))]
        counts = {"failed": listed.count("fail"), "unseen": listed.count("unknown")}
        passed = " and ".join(f"{count} {word}" for word, count in counts.items() if count)
        passed += f" check{'s' * (sum(counts.values()) != 1)}" * bool(passed)
        except_for = medium("kept its promises, except for {} that the policy lets pass").format(passed)
        return except_for if passed else medium("kept its promises")

    def _flag_now(self) -> Medium:
        medium, v, action, flag = self.medium, self.verdict, self.verdict.action, self.plan.flag
        if v.headline:
            return (medium("{} is still on") if action.flag == "on" else medium("{} may still be on")).format(flag)
        if action.kind != "none" and action.result != "dry_run":
            after = action.to_percent
            if after is None:
                return medium("where {} is now is not known").format(flag)
            return (
                medium("{} is at {} now").format(flag, percent(after))
                if after
                else medium("{} is off now").format(flag)
            )
        at = action.from_percent
        if not at:
            return medium("{} stays as it is").format(flag) if at is None else medium("{} stays off").format(flag)
        return medium("{} stays at {}").format(flag, percent(at))

    def _do_now(self) -> Medium:
        medium, v = self.medium, self.verdict
        if v.headline:
            return medium("run the gate again" if v.action.result == SUPERSEDED else "switch it off by hand at once")
        if v.decision is Decision.ROLLBACK:
            is_off = v.action.flag == "off"
            repaired = medium("mend it, deploy, switch the flag on again, and run the gate")
            return repaired if is_off else medium("mend it, deploy, and run the gate again")
        if v.decision is Decision.HOLD:
            failed = bool(v.deciding) and v.deciding[0].outcome == "fail"
            several = len(grouped(v.deciding)) > 1
            unseen = medium("see to the causes below") if several else medium("see to the cause")
            what = medium("mend what failed") if failed else unseen
            return medium("{}, then run the gate again").format(what)
        if v.action.result == "dry_run":
            return medium("run the gate without --dry-run, or hand the verdict over")
        is_last = self._next_percent is None
        return medium("nothing is left to do") if is_last else medium("let it bake, then run the gate again")

    def happened(self) -> Medium:
        medium, v, who = self.medium, self.verdict, self._who()
        causes = grouped(v.deciding)
        if v.shown_as is Decision.PROMOTE:
            one, all_of_them = medium("its one required check"), medium("all {} required checks")
            checks = one if v.counts.passed == 1 else all_of_them.format(v.counts.passed)
            return medium("{} {}: {} passed.").format(who, self._kept(), checks)
        if v.action.holds and v.decision is Decision.HOLD and not causes:
            return medium("{} passed its checks, and its flag could not be stepped: {}.").format(who, v.action.message)
        if not causes:
            return medium("Nobody knows whether {} is safe: {}.").format(self._who(begins=False), v.reason)
        first = causes[0][0]
        if first.outcome == "fail":
            promise = self.promises.get(first.check, "")
            said = medium("{} broke this promise: {}").format(who, promise)
            if not promise:
                said = medium("{} failed the check {}.").format(who, first.check)
            others = sum(group[0].outcome == "fail" for group in causes) - 1
            more = "One other cause is" if others == 1 else f"{others} other causes are"
            return medium("{} {} listed below.").format(said, more) if others else said
        known = v.counts.passed + v.counts.failed + v.counts.unknown
        return medium("Nobody knows whether {} is safe: {} of {} checks saw nothing to judge by. {}: {}").format(
            self._who(begins=False),
            v.counts.unknown,
            known,
            medium("The cause") if len(causes) == 1 else medium("The first of {} causes").format(len(causes)),
            _ended(first.said),
        )

    def done(self) -> Medium:
        medium, action, flag = self.medium, self.verdict.action, self.plan.flag
        if self.verdict.stage is not None:
            return medium("A stage alone decides nothing, and changes no flag.")
        if self.verdict.headline:
            return medium("The rollback was not carried out: {}.").format(action.message)
        if action.kind == "none":
            if action.result == "pending" or not action.message:
                return self._left_alone()
            return medium("No flag was changed: {}.").format(action.message)
        before, after = percent(action.from_percent), percent(action.to_percent)
        if action.result == "dry_run":
            return medium("Nothing, in a dry run. The flag {} would go from {} to {}.").format(flag, before, after)
        if action.holds:
            return medium("{}.").format(action.message)
        return medium("The flag {} went from {} to {}.").format(flag, before, after)

    def _left_alone(self) -> Medium:
        at = self.verdict.action.from_percent
        if at is None:
            return self.medium("No flag was changed.")
        return self.medium("No flag was changed: {} stays at {}.").format(self.plan.flag, percent(at))

    def now(self) -> Medium:
        medium, v = self.medium, self.verdict
        if v.headline:
            if v.action.by_hand:
                return medium("Run the SQL below by hand at once, then see that the flag is off (gate status).")
            if v.action.result == SUPERSEDED:
                return medium("See what is on now (gate status), and run the gate again: it judges that.")
            return medium("See at once whether the flag is off (gate status), and switch it off by hand.")
        if v.shown_as is Decision.PROMOTE:
            if v.stage is None:
                return self._next_step()
            where = v.contract.queue_elsewhere(v.stage.name)
            return medium.prose(f"Look at the queue: {where}.") if where else medium("Nothing is left to do.")
        first = v.deciding[0] if v.deciding else None
        do = (
            medium.prose(remedy_of(first.check, first.outcome, v.contract, seen=first.message)) if first else medium("")
        )
        if v.decision is Decision.ROLLBACK:
            said = medium("{} Take the release back or deploy the repair").format(do)
            if v.action.flag != "off":
                return medium("{}, then run the gate again.").format(said)
            enable = medium.prose(f"`gate flags enable {self.plan.flag} --at {min(self.plan.steps)} --reason WHY`")
            said = medium("{}, switch the flag on again ({}), and run the gate.").format(said, enable)
            if any(f.check == OTHER_PATH and f.outcome == "fail" for f in v.findings):
                other = medium("Events take the direct path now, and that is broken, too ({}): mend it at once. {}")
                return other.format(OTHER_PATH, said)
            return said
        if do:
            return medium("{} Then run the gate again.").format(do)
        if not v.ends_when:
            return medium("See to the cause, and run the gate again.")
        ends, more = v.ends_when[0], len(v.ends_when) - 1
        said = medium("See to the cause, and run the gate again. The hold ends when {}").format(ends)
        others = "one more condition is" if more == 1 else f"{more} more conditions are"
        return medium("{} and {} met.").format(said, others) if more else medium("{}.").format(said)

    def _next_step(self) -> Medium:
        medium, action, plan = self.medium, self.verdict.action, self.plan
        if action.result == "dry_run":
            return medium("Run the gate without --dry-run, or hand the verdict over: gate promote --from DIR.")
        if self._next_percent is not None:
            return medium("Let it bake ({} minutes a step), then run the gate again for {} %.").format(
                plan.bake_minutes, self._next_percent
            )
        last = medium("Nothing is left to do: that is the last step.")
        return last if action.to_percent else medium("Nothing is left to do.")

    @property
    def _next_percent(self) -> int | None:
        """The step that the flag bakes for; None if there is none."""
        action, plan = self.verdict.action, self.plan
        at = action.to_percent
        above = [step for step in plan.steps if at is not None and step > at]
        if action.result != "baking" and (action.kind != "promote" or not above):
            return None
        return above[0] if above else max(plan.steps)


def beside_causes(verdict: Verdict, plan: RolloutPlan) -> tuple[str, ...]:
    """What the brief and the causes do not say yet: of the reason, and the remarks."""
    if verdict.deciding:
        return verdict.remarks
    told = brief(Terminal, verdict, {}, plan)
    news = [part for part in verdict.reason.split("; ") if part not in told.happened and part not in told.done]
    reason = (f"reason: {'; '.join(news)}",) if news else ()
    return (*reason, *(r for r in verdict.remarks if r not in verdict.reason))


def _areas(checks: Iterable[str]) -> str:
    """The subjects of the checks: the titles of two areas of the contract, and how many more there are."""
    return ", ".join(short_list([*dict.fromkeys(filter(None, map(_about, checks)))], MOST_AREAS))


def _about(check: str) -> str:
    """The subject of a check, in words; empty for the gate's own floor and for a user's own check."""
    known, area = contract(), contract().area_of(check)
    title = known.areas[area].title if area not in {"", OWN} else ""
    return next((words for start, words in ABOUT.items() if check.startswith(start)), title)


def _ended(text: str) -> str:
    """The text as a sentence, with exactly one full stop."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def percent(value: int | None) -> str:
    """A flag's percentage for people."""
    return "an unknown percentage" if value is None else f"{value} %" if value else "off"


RECOVERY = {
    "decision_to_off_s": "seconds from the decision until the flag was off",
    "decision_to_drained_s": "seconds from the decision until nothing was in flight",
    "watched_s": "seconds for which the flag was watched after it went off",
    "in_flight": "events in flight at the end",
    "held": "events held back by the flag",
    "half_replayed": "replays left half done",
    "unread": "not seen, because",
    "on_somewhere": "rows of the flag",
    "proved": "the recovery",
    "agents_paused": "rows that pause the agents",
    "rate_limits_cleared": "replay limits that were cleared",
}
STATES = {"on_somewhere": ("off, all of them", "one is still on"), "proved": ("not proved", "proved")}
"""Members that are true or false -> the words for false and for true."""


def recovery_lines(recovery: Mapping[str, JsonValue]) -> list[tuple[str, str]]:
    """What was proved after a rollback: name and value in words."""
    return [
        (RECOVERY.get(name, name), STATES[name][value] if name in STATES and isinstance(value, bool) else shown(value))
        for name, value in recovery.items()
    ]


def short_list(items: Sequence[str], most: int) -> list[str]:
    """At most so many items, and how many more there are."""
    left = len(items) - most
    return [*items[:most], f"and {left} more"] if left > 0 else list(items)
