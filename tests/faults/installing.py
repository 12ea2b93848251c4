"""Installs a fault in a running stack for the time of a block."""

import asyncio
import importlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import uvicorn

from faults.catalogue import Fault, behind_proxy
from gates import catalogue
from gates.evidence import TargetKind, Where
from gates.proof.fault import read_list
from gates.proof.workbench.bench import ProofBench
from gates.stack.service import Supervised
from gates.stack.stack import Stack
from replay_service.app import server_config
from replay_service.settings import read_settings
from tests.faults.cover import declared

DRILLS = {spec.id: spec for spec in catalogue.load() if spec.id.startswith("drill/")}


@contextmanager
def served(fault: Fault, stack: Stack) -> Iterator[str]:
    """The base URL of a faulty service in this process, over the stack's database."""
    module, _, name = (fault.parts or "").partition(":")
    released = next(p for p in stack.processes if isinstance(p, Supervised) and p.name.startswith("service"))
    base = urlsplit(stack.info.base_url)
    settings = read_settings({**released._own.environ, **fault.env}, base.path)
    server = uvicorn.Server(server_config(getattr(importlib.import_module(module), name)(settings)))
    with socket.create_server(("127.0.0.1", 0), backlog=128) as sock, asyncio.Runner() as runner:
        thread = threading.Thread(target=runner.run, args=(server.serve(sockets=[sock]),))
        thread.start()
        try:
            yield urlunsplit(base._replace(netloc=f"127.0.0.1:{sock.getsockname()[1]}"))
        finally:
            server.should_exit = True
            thread.join(10)


@contextmanager
def installed(fault: Fault, stack: Stack) -> Iterator[dict[str, str]]:
    """A gate's variables while the fault is in. This process serves a faulty service, unless its checks control the
    stack's processes.
    """
    variables = {**stack.info.variables(), "GATE_TARGET": "reference", "GATE_STACK_CONTROL": stack.info.control}
    own_process = any(DRILLS[i].where is Where.REFERENCE for i in declared(fault, DRILLS))
    if fault.kind == "proxy":
        with behind_proxy(variables, fault) as told:
            yield {**variables, **told}
    elif fault.kind == "service" and not fault.sql and not own_process:
        with served(fault, stack) as url:
            yield {**variables, "BASE_URL": url}
    else:
        bench, (read,) = ProofBench(stack, os.environ, TargetKind.REFERENCE), read_list(json.dumps([fault.as_json()]))
        bench.put_in(read)
        try:
            yield variables
        finally:
            bench.take_out(read)
