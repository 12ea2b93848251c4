"""How exact the latencies are: a server whose delays are known to the microsecond, and what the load run says of them.

`python benchmarks/load_accuracy.py [seconds]` prints the exact and the measured p50, p95 and p99, and the error against
what is allowed (0.1 % of the value and 1 ms). The server notes every delay that it really made. On a busy machine give
both processes a priority (`chrt -f 5 python benchmarks/load_accuracy.py`): else its scheduler is measured.
"""

import asyncio
import json
import math
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from loadtests.engine.sinks import TrendSink

ROOT = Path(__file__).resolve().parent.parent
RATE = 100.0
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Known:
    """A server in a thread of its own; `made_ms` are the delays from the last byte in to the first byte out."""

    def __init__(self, draw: list[float]) -> None:
        self.draw, self.made_ms, self.url = draw, TrendSink(), ""
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()
        self.ready.wait(timeout=5)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._talk, "127.0.0.1", 0, backlog=512))
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        self.ready.set()
        self.loop.run_forever()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                came = time.perf_counter()
                delay_s = self.draw[self.made_ms.samples % len(self.draw)] / 1000.0
                await asyncio.sleep(delay_s)
                self.made_ms.add((time.perf_counter() - came) * 1000.0)
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def measure(draw: list[float], seconds: float, folder: Path) -> tuple[TrendSink, dict[str, float]]:
    """The delays that the server made, and the latency that the run reports."""
    server = Known(draw)
    plan = {
        "base_url": server.url, "url_only": True, "rate_per_s": RATE, "duration_s": seconds, "most_s": seconds,
        "thresholds_text": "{http_req_duration: ['p(95)<60000']}", "thresholds_name": "t.js",
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    command = [sys.executable, "-m", "loadtests", str(folder / "plan.json"), str(folder / "out")]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=120)
    latency = json.loads((folder / "out" / "result.json").read_text(encoding="utf-8"))["latency"]
    return server.made_ms, latency


def main() -> None:
    """Three distributions, one table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    rng = random.Random(11)
    shapes = {
        "uniform 1..300 ms": [rng.uniform(1, 300) for _ in range(5000)],
        "lognormal, median 40 ms": [min(2000.0, rng.lognormvariate(math.log(40), 0.8)) for _ in range(5000)],
        "6 % at 900 ms, rest 254.9 ms": [900.0 if rng.random() < 0.06 else 254.9 for _ in range(5000)],
    }
    sys.stdout.write(f"{'distribution':30}{'':5}{'exact ms':>10}{'measured':>10}{'error':>8}{'allowed':>9}{'n':>7}\n")
    for name, draw in shapes.items():
        with tempfile.TemporaryDirectory(prefix="load-accuracy-") as folder:
            exact, latency = measure(draw, seconds, Path(folder))
        for percent in (50, 95, 99):
            truth, seen = exact.percentile(float(percent)), latency[f"p{percent}"]
            allowed = truth * 0.001 + 1.0
            mark = f"{exact.samples:7}" + ("" if abs(seen - truth) <= allowed else "  OVER")
            sys.stdout.write(
                f"{name:30}p{percent:<4}{truth:10.2f}{seen:10.2f}{seen - truth:8.2f}{allowed:9.2f}{mark}\n"
            )


if __name__ == "__main__":
    main()
