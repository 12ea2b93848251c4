"""`gate watch`: its options, its reports, its exit code. Returns text or hands it on; does not print."""

import argparse
import dataclasses
import datetime as dt
import re
import signal
from pathlib import Path
from types import FrameType

from gates import config, record
from gates.deployment.identity import database_place, http_place
from gates.deployment.target import Target
from gates.errors import ENDING_SIGNALS, ConfigError, UsageError
from gates.inputs import options as shared
from gates.inputs import values
from gates.inputs.values import option
from gates.reports.console import Console
from gates.stages import collection
from gates.text.inert import Terminal
from gates.text.quantity import span
from gates.watch import history
from gates.watch.html import html
from gates.watch.incidents import Patience, health_of
from gates.watch.look import Drills
from gates.watch.rounds import EXIT_CODES
from gates.watch.story import FinishedRound, Watch, one_round, rounds
from gates.watch.text import markdown, round_text, to_json
from gates.watch.trends import WINDOW
from gates.watch.view import WatchView, nearing

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
ANOTHER_WATCHER = "another watcher is in the middle of a round on this history; this one looked at nothing"
DOUBTFUL = EXIT_CODES["doubtful"]


def add_arguments(made: argparse.ArgumentParser, _name: str) -> None:
    shared.policy(made)
    shared.state(made)
    shared.as_json(made)
    shared.exit_zero(made)
    add = made.add_argument
    how = made.add_mutually_exclusive_group()
    how.add_argument(
        "--once", action="store_true", help="one round, for a scheduler; without it, rounds until a signal"
    )
    how.add_argument("--report", action="store_true", help="no round: the reports and the exit code from the history")
    add("--every", type=duration, default=300.0, metavar="T", help="when the next round is due: 30s, 5m (default), 1h")
    add(
        "--drills",
        type=Drills,
        choices=list(Drills),
        default=Drills.AUTO,
        help="auto: the canary's drills, or the short drill, if possible",
    )
    add("--history", type=Path, metavar="FILE", help="the history (history.ndjson in the target's folder under state)")
    add(
        "--output",
        type=option(values.folder),
        metavar="DIR",
        help="write history.html and history.md there after each round",
    )
    add("--rollback-on-page", action="store_true", help="switch the flag off on a page failure that lasts")
    add(
        "--confirm",
        type=option(values.whole(1, 100)),
        default=2,
        metavar="N",
        help="rounds in a row before that, or before an unseen check is reported",
    )
    add("--remind", type=duration, default=14_400.0, metavar="T", help="report ongoing failures again (default 4h)")


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """Run the command; returns its exit code. Raise UsageError or ConfigError if it cannot be run."""
    config.load_policy(options.policy, dt.datetime.now(dt.UTC).date(), options.state)  # first: it sets the names
    code = _run(options, config.load_target(console.environ), console)
    return 0 if options.exit_zero_on == "hold" and code == DOUBTFUL else code


def _run(options: argparse.Namespace, target: Target, console: Console) -> int:
    made = _watch(options, target, console)
    if options.report:
        return _reported(options, made, console)
    if not target.base_url and not target.database_url:
        raise ConfigError("neither BASE_URL nor DATABASE_URL is set; allowed: at least one of them. Set what to watch")
    if options.rollback_on_page and not target.database_url:
        raise ConfigError("--rollback-on-page without DATABASE_URL; allowed: with it. Set the variable")
    if options.once:
        return _shown(one_round(made), options, made, console)
    console.say(f"a round every {span(made.interval_s)}; the history is {made.history}")
    rounds(made, lambda done: _each(done, options, made, console))
    return 0


def _watch(options: argparse.Namespace, target: Target, console: Console) -> Watch:
    file = config.load_policy(options.policy, dt.datetime.now(dt.UTC).date(), options.state)
    specs = collection.with_own_checks(file, console.environ)
    made = Watch(
        target=target,
        policy_file=file,
        catalogue=specs,
        history=Path(),
        interval_s=options.every,
        drills=options.drills,
        patience=Patience(options.confirm, options.remind),
        rollback=options.rollback_on_page,
        environ=console.environ,
        progress=(lambda _p: None) if options.json else console.progress,
        warn=console.warn,
    )
    path = options.history or file.settings.state_of(made.name) / history.FILE
    if path.is_dir():
        raise UsageError(f"{path} is a folder; allowed: a file. Correct --history")
    return dataclasses.replace(made, history=path)


def _each(done: FinishedRound | None, options: argparse.Namespace, made: Watch, console: Console) -> None:
    """Show a round of the long-running watch; a signal meanwhile waits until it is shown."""
    with _signals_held():
        _shown(done, options, made, console)


def _shown(done: FinishedRound | None, options: argparse.Namespace, made: Watch, console: Console) -> int:
    if done is None:
        console.say(ANOTHER_WATCHER)
        return DOUBTFUL
    view = _view(made)
    if options.output is not None:
        try:
            _write(view, options.output)
        except ConfigError as error:  # the round is recorded, and its exit code counts
            console.warn(str(error))
    if options.json:
        console.result(Terminal.document(to_json(view, done.round, done.health, done.slack_error)))
    else:
        console.result(round_text(done.round, done.health, nearing(view.trends())))
        if view.odd:
            console.say(view.odd)
    return done.round.exit_code


def _reported(options: argparse.Namespace, made: Watch, console: Console) -> int:
    view = _view(made)
    folder = options.output or Path("gate-watch")
    files = _write(view, folder)
    if options.json:
        console.result(Terminal.document(to_json(view)))
    else:
        console.result(Terminal.of_lines((f"{view.state.upper()}: {view.reason}", *(f"  {path}" for path in files))))
        if view.odd:
            console.say(view.odd)
    return EXIT_CODES[view.state]


def _view(made: Watch) -> WatchView:
    now = made.now()
    found = history.read(made.history, made.name, now - WINDOW)
    place = " and ".join(p for p in (http_place(made.target), database_place(made.target)) if p)
    specs = {s.id: s for s in made.catalogue}
    return WatchView(
        rounds=found.rounds,
        last=found.last,
        now=now,
        health=health_of(found.last, found.good, now),
        place=place,
        before=found.before,
        total=found.total,
        odd=found.said,
        dropped=found.dropped,
        others=found.others,
        specs=specs,
        contract=made.policy_file.scope,
    )


def _write(view: WatchView, folder: Path) -> list[Path]:
    texts = {"history.html": html(view), "history.md": markdown(view)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            record.write(folder / name, text)
    except OSError as error:
        raise ConfigError(f"{error}; allowed: a folder that can be written. Correct --output") from error
    return [folder / name for name in texts]


class _signals_held:  # noqa: N801  -- reads as what it does
    """Delays the signals that end a command until the block is left."""

    def __enter__(self) -> None:
        self._came: list[int] = []
        self._before = {number: signal.signal(number, self._note) for number in ENDING_SIGNALS}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._came.append(number)

    def __exit__(self, *_exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._came:
            signal.raise_signal(self._came[0])


def duration(text: str) -> float:
    """Seconds of `90`, `30s`, `5m`, `1h` or `1d`."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text.strip())
    seconds = int(found[1]) * UNITS[found[2] or "s"] if found else 0
    if not 1 <= seconds <= 366 * 86_400:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: 1s to 366d, like 30s, 5m or 1h")
    return float(seconds)
