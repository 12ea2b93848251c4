"""`gate serve`: its options. The server itself is in serve.py."""

import argparse
import datetime as dt

from gates import config
from gates.errors import CannotWork, UsageError
from gates.inputs import options as shared
from gates.inputs import values
from gates.inputs.values import option
from gates.operator.serve import Desk, VerdictServer
from gates.reports.console import Console

TOKEN = "GATE_SERVE_TOKEN"  # noqa: S105  -- the name of the variable
LOOPBACK = ("127.0.0.1", "::1", "localhost")
LEAST_TOKEN = 16


def add_arguments(made: argparse.ArgumentParser, _name: str) -> None:
    shared.policy(made)
    shared.state(made)
    made.add_argument("--host", default="127.0.0.1", help="the address to listen on; beyond loopback a token is needed")
    said = "the port (default: 8600; 0: any that is free)"
    made.add_argument("--port", type=option(values.whole(0, 65_535)), default=8600, help=said)


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """Serve until a signal. Raise UsageError for an address beyond loopback without a token."""
    file = config.load_policy(options.policy, dt.datetime.now(dt.UTC).date(), options.state)
    token = console.environ.get(TOKEN, "")
    if options.host not in LOOPBACK and len(token) < LEAST_TOKEN:
        raise UsageError(
            f"--host {options.host} without a token of {LEAST_TOKEN} characters; allowed: loopback. Set {TOKEN}"
        )
    console.hide = {**console.hide, **({token: TOKEN} if token else {})}
    age = dt.timedelta(minutes=file.max_age_minutes)
    desk = Desk(file.settings.state, age, lambda: dt.datetime.now(dt.UTC), token)
    try:
        server = VerdictServer((options.host, options.port), desk)
    except OSError as error:
        raise CannotWork(f"{options.host}:{options.port}: {error}; allowed: a free address. Correct --port") from error
    with server:
        console.result(f"http://{options.host}:{server.server_address[1]}")
        server.serve_forever()
    return 0
