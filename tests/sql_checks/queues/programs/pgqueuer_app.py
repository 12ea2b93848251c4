"""One program for all that a test does with PgQueuer: URL setup | send TASK COUNT | work."""

import asyncio
import sys
from typing import Any

import asyncpg  # type: ignore[import-not-found]
from pgqueuer import PgQueuer  # type: ignore[import-not-found]
from pgqueuer.db import AsyncpgDriver  # type: ignore[import-not-found]
from pgqueuer.queries import Queries  # type: ignore[import-not-found]


async def main(doing: str, task: str = "mail", count: str = "1") -> None:
    """Do one thing."""
    driver = AsyncpgDriver(await asyncpg.connect(sys.argv[1]))
    queries = Queries(driver)
    if doing == "setup":
        await queries.install()
    elif doing == "send":
        jobs = int(count)
        await queries.enqueue([task] * jobs, [None] * jobs, [0] * jobs)
    else:
        await work(PgQueuer(driver))


async def work(worker: Any) -> None:
    """Work for ever."""

    @worker.entrypoint("mail")  # type: ignore[untyped-decorator]
    async def mail(job: Any) -> None:
        del job

    @worker.entrypoint("bad")  # type: ignore[untyped-decorator]
    async def bad(job: Any) -> None:
        raise ValueError(job)

    @worker.entrypoint("slow")  # type: ignore[untyped-decorator]
    async def slow(job: Any) -> None:
        del job
        await asyncio.sleep(60)

    @worker.schedule("yearly", "0 0 1 1 *")  # type: ignore[untyped-decorator]
    async def yearly(schedule: Any) -> None:
        del schedule

    print("ready", flush=True)
    await worker.run()


asyncio.run(main(*sys.argv[2:]))
