"""How fast the load generator is, against k6 and wrk, on one small nginx answer.

`python benchmarks/load_speed.py [seconds]`

Prints requests per second and the generator's own CPU seconds per 100,000 requests; rounds are interleaved, medians
shown. Needs nginx, wrk and k6 on PATH (the development extra brings k6).
"""

import contextlib
import json
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 3
USERS = 16
K6_SCRIPT = """
import http from 'k6/http';
const thresholds = { http_req_failed: ['rate<0.02'], http_req_duration: ['p(95)<2500'] };
export const options = { vus: %d, duration: '%ds', thresholds };
export default function () { http.get('%s'); }
export function handleSummary(data) { return { stdout: JSON.stringify(data.metrics.http_reqs.values) }; }
"""
NGINX = """
worker_processes 1; daemon off; pid %(folder)s/nginx.pid; error_log %(folder)s/error.log;
events { worker_connections 1024; }
http { access_log off; keepalive_requests 1000000000;
  server { listen 127.0.0.1:%(port)d; location / { return 200 "a small response"; } } }
"""


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[str]:
    """The address of an nginx that answers everything with a few bytes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "nginx.conf").write_text(NGINX % {"folder": folder, "port": port}, encoding="utf-8")
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                break
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(timeout=10)


def measured(command: list[str], folder: Path) -> tuple[float, str]:
    """CPU seconds (user and system, with all children) that a command took, and its output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    (folder / "last.log").write_text(done.stderr, encoding="utf-8")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def ours(url: str, seconds: int, folder: Path, workers: int) -> tuple[float, float]:
    """(requests per second, CPU seconds per 100,000 requests), start-up and report included."""
    text = "{http_req_failed: ['rate<0.02'], http_req_duration: ['p(95)<2500']}"
    plan = {
        "base_url": url, "url_only": True, "vus": USERS, "duration_s": seconds, "most_s": seconds, "workers": workers,
        "thresholds_text": text, "thresholds_name": "t.js", "run_on": False, "detail": False,
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    cpu, _ = measured([sys.executable, "-m", "loadtests", str(folder / "plan.json"), str(folder / "out")], folder)
    result = json.loads((folder / "out" / "result.json").read_text(encoding="utf-8"))
    requests = result["facts"]["requests"]
    return requests / result["elapsed_s"], cpu / requests * 1e5


def k6(url: str, seconds: int, folder: Path) -> tuple[float, float]:
    binary = shutil.which("k6") or str(Path(sys.executable).parent / "k6")
    (folder / "s.js").write_text(K6_SCRIPT % (USERS, seconds, url), encoding="utf-8")
    cpu, out = measured([binary, "run", "--quiet", "--no-usage-report", str(folder / "s.js")], folder)
    values = json.loads(out)
    return values["rate"], cpu / values["count"] * 1e5


def wrk(url: str, seconds: int, folder: Path) -> tuple[float, float]:
    cpu, out = measured(["wrk", "-t2", f"-c{USERS}", f"-d{seconds}s", url], folder)
    count = int(next(line for line in out.splitlines() if " requests in " in line).split()[0])
    return count / seconds, cpu / count * 1e5


def main() -> None:
    """Run all generators in turn and print a table."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory(prefix="load-speed-") as name:
        folder = Path(name)
        tools: dict[str, Callable[[str], tuple[float, float]]] = {
            "k6": lambda url: k6(url, seconds, folder),
            "gate load": lambda url: ours(url, seconds, folder, 0),
            "gate load --workers 2": lambda url: ours(url, seconds, folder, 2),
            "wrk": lambda url: wrk(url, seconds, folder),
        }
        folder.chmod(0o755)
        found: dict[str, list[tuple[float, float]]] = {tool: [] for tool in tools}
        with nginx(folder) as url:
            for _ in range(ROUNDS):
                for tool, run in tools.items():
                    found[tool].append(run(url))
    sys.stdout.write(f"{USERS} users, {seconds} s, {ROUNDS} rounds, medians\n")
    sys.stdout.write(f"{'generator':24}{'requests/s':>12}{'CPU s per 10^5':>16}\n")
    for tool, rows in found.items():
        rate, cpu = (statistics.median(row[i] for row in rows) for i in (0, 1))
        sys.stdout.write(f"{tool:24}{rate:12,.0f}{cpu:16.2f}\n")


if __name__ == "__main__":
    main()
