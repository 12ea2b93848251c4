"""`python -m replay_service serve`: arguments, start-up errors, the composition, the HTTP server."""

import argparse
import asyncio
import importlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import uvicorn
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from replay_service.composition import build_parts
from replay_service.logs import configure_logs
from replay_service.parts import Parts
from replay_service.problems import PROBLEM_TYPE, problem_body
from replay_service.settings import ConfigurationError, Settings, read_settings
from replay_service.surface import build_surface

EXIT_CONFIGURATION = 3
GRACE_S = 3
BACKLOG = 2048
KEEP_ALIVE_S = 30


def main(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Exit 0, or 3 with a message on stderr for a configuration error."""
    options = _options(argv)
    try:
        settings = read_settings(os.environ if environment is None else environment, options.base_path)
        _check_url(settings.database_url)
        parts = _composition(options.parts)(settings)
        listener = _listener(options)
    except ConfigurationError as error:
        sys.stderr.write(f"replay_service: configuration error: {error}\n")
        return EXIT_CONFIGURATION
    configure_logs(settings.log_level)
    server = uvicorn.Server(server_config(parts))
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again when it has stopped; a graceful stop is exit 0
        signal.signal(number, lambda _number, _frame: None)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets=[listener]))
    return 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="replay_service serve", description="Serve the HTTP endpoints.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--fd", type=int, help="an inherited listening socket, instead of --host and --port")
    parser.add_argument("--base-path", default="", help="prefix of every endpoint, for example /functions/v1")
    parser.add_argument("--parts", default="", metavar="MODULE:FUNCTION", help="another composition: settings -> Parts")
    return parser.parse_args(list(argv))


def _check_url(url: str) -> None:
    try:
        conninfo_to_dict(url)
    except ProgrammingError:
        # the text of libpq may quote the URL, and with it the password
        raise ConfigurationError("DATABASE_URL is no PostgreSQL URL; write it like postgresql://user@host/db") from None


def _composition(name: str) -> Callable[[Settings], Parts]:
    if not name:
        return build_parts
    module, _, function = name.partition(":")
    try:
        return cast("Callable[[Settings], Parts]", getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"--parts {name!r}: {error}; give MODULE:FUNCTION") from None


def _listener(options: argparse.Namespace) -> socket.socket:
    """A listening socket: inherited as it is, with its own family, or bound here."""
    try:
        if options.fd is not None:
            return socket.socket(fileno=options.fd)
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        return socket.create_server((options.host, options.port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        where = f"--fd {options.fd}" if options.fd is not None else f"{options.host} port {options.port}"
        raise ConfigurationError(f"cannot listen on {where}: {error}; give a free port or an open socket") from None


def server_config(parts: Parts) -> uvicorn.Config:
    """How the HTTP server runs a composition."""
    config = uvicorn.Config(
        build_surface(parts),
        ws="none",
        lifespan="on",
        proxy_headers=False,  # the client address is decided by the contract's rule, not by a default
        server_header=False,
        access_log=False,
        log_config=None,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    config.load()
    config.http_protocol_class = _speaking_problems(config.http_protocol_class)
    return config


def _speaking_problems(protocol: type[Any]) -> type[Any]:
    """Uvicorn's protocol, which answers bytes that are not an HTTP request with a problem body."""

    class Protocol(protocol):  # type: ignore[misc]
        def send_400_response(self, _message: str) -> None:
            body = problem_body("malformed_request", "The bytes sent are no acceptable HTTP request.")
            head = (
                f"HTTP/1.1 400 Bad Request\r\ncontent-type: {PROBLEM_TYPE}\r\ncontent-length: {len(body)}\r\n"
                f"x-request-id: {secrets.token_hex(16)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()

    return Protocol
