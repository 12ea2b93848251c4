"""Starting and stopping the process, and bytes that are no HTTP request."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable

import httpx
import pytest

from tests.replay_service.http.service_process import BASE_PATH, ENVIRONMENT, HMAC_SECRET, Db, Service, post, value


def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **ENVIRONMENT, "DATABASE_URL": "postgresql://u:hidden-password@127.0.0.1:1/x", **changes}
    return subprocess.run(
        [sys.executable, "-m", "replay_service", "serve", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"TRANSBOT_HMAC_SECRET": ""}, "TRANSBOT_HMAC_SECRET"),
        ({"TRANSBOT_HMAC_SECRET": "short"}, "16"),
        ({"TRANSBOT_HMAC_SECRET": f"{HMAC_SECRET},,{HMAC_SECRET}"}, "element 2"),
        ({"TRANSBOT_HMAC_SECRET": f"{HMAC_SECRET},"}, "element 2"),
        ({"REPLAY_JWT_SECRET": ""}, "REPLAY_JWT_SECRET"),
        ({"REPLAY_JWT_SECRET": "x" * 31}, "32"),
        ({"REPLAY_JWT_SECRET": "y" * 32, "TRANSBOT_HMAC_SECRET": f"{HMAC_SECRET},{'y' * 32}"}, "differ"),
        ({"DATABASE_URL": ""}, "DATABASE_URL"),
        ({"DATABASE_URL": "no url hidden-password"}, "DATABASE_URL"),
        ({"TRUSTED_PROXIES": "10.0.0.0/8,nonsense"}, "TRUSTED_PROXIES"),
    ],
)
def test_configuration_errors_are_exit_3(changes: dict[str, str], named: str) -> None:
    """A bad environment is refused with the name of the variable and without any secret."""
    done = run("--port", "0", **changes)
    assert done.returncode == 3, done.stderr
    assert named in done.stderr
    for secret in (HMAC_SECRET, "hidden-password", "y" * 32, "x" * 31):
        assert secret not in done.stderr


def test_a_broken_composition_is_exit_3() -> None:
    """--parts names a function that exists."""
    assert run("--parts", "replay_service.parts:nothing").returncode == 3


def talk(service: Service, *pieces: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
        for piece in pieces:
            connection.sendall(piece)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"POST %s/dlq-replay HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST %s/dlq-replay HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST %s/dlq-replay HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        b"POST %s/dlq-replay HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"NONSENSE %s/dlq-replay HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_malformed_http_is_a_problem_and_closes(service: Service, raw: bytes) -> None:
    """Ambiguous framing is 400 as a problem with a request id, and the connection is closed."""
    answer = talk(service, raw.replace(b"%s", BASE_PATH.encode()))
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"application/problem+json" in answer
    assert b"x-request-id:" in answer
    assert answer.count(b"HTTP/1.1") == 1


def test_a_trusted_proxy_names_the_client(
    start_service: Callable[..., Service], service: Service, db: Db, company: str
) -> None:
    """Only behind a trusted peer does the right-most untrusted entry count; an unparsable one means the peer."""
    behind = start_service(TRUSTED_PROXIES="127.0.0.0/8, 10.0.0.0/8")
    cases = {
        "1.1.1.1, 203.0.113.7": "203.0.113.7",
        "203.0.113.8, 10.1.2.3": "203.0.113.8",
        "::ffff:203.0.113.9": "203.0.113.9",
        "2001:DB8::1": "2001:db8::1",
        "203.0.113.1, junk": "127.0.0.1",
        "203.0.113.1, 203.0.113.2:443": "127.0.0.1",
        "10.0.0.1": "127.0.0.1",
    }
    with httpx.Client(base_url=behind.url) as client:
        for forwarded, expected in cases.items():
            assert post(client, {"company_id": company, "dry_run": True}, x_forwarded_for=forwarded).status_code in {
                200,
                429,
            }
            assert (
                value(db, "SELECT count(*) FROM edge_rate_limits WHERE key = %s", f"replay:{company}:{expected}") == 1
            )


def test_an_inherited_socket_knows_its_peers(start_service: Callable[..., Service], db: Db, company: str) -> None:
    """With --fd the service serves an inherited listening socket, sees client addresses, and stops with exit 0."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inherited = start_service(listener=listener)
        with httpx.Client(base_url=inherited.url) as client:
            assert post(client, {"company_id": company, "dry_run": True}).status_code == 200
        inherited.stop()
    assert value(db, "SELECT count FROM edge_rate_limits WHERE key = %s", f"replay:{company}:127.0.0.1") == 1


def test_another_composition_replaces_one_part(
    start_service: Callable[..., Service], company: str, service: Service
) -> None:
    """--parts runs a twin of the service in which one part is another, without a switch in the service."""
    twin = start_service("--parts", "tests.replay_service.http.service_process:parts_without_limit")
    with httpx.Client(base_url=twin.url) as client:
        statuses = [post(client, {"company_id": company, "dry_run": True}).status_code for _ in range(5)]
    assert statuses == [200] * 5
