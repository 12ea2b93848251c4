"""One program for all that a test does with Procrastinate: URL setup | send TASK COUNT | work."""

import asyncio
import sys
from typing import Any

import procrastinate  # type: ignore[import-not-found]

app: Any = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=sys.argv[1]))


@app.task(queue="mail", name="mail")  # type: ignore[untyped-decorator]
async def mail(company_id: str) -> None:
    """Done at once."""
    del company_id


@app.task(queue="bad", name="bad")  # type: ignore[untyped-decorator]
async def bad(company_id: str) -> None:
    """Fail, each time."""
    raise ValueError(company_id)


@app.task(queue="slow", name="slow")  # type: ignore[untyped-decorator]
async def slow(company_id: str) -> None:
    """Go on for longer than any test."""
    del company_id
    await asyncio.sleep(60)


async def main(doing: str, task: str = "mail", count: str = "1") -> None:
    """Do one thing."""
    async with app.open_async():
        if doing == "setup":
            await app.schema_manager.apply_schema_async()
        elif doing == "send":
            for n in range(int(count)):
                await app.tasks[task].defer_async(company_id=f"company {n % 3}")
        else:
            print("ready", flush=True)
            await app.run_worker_async(concurrency=5, install_signal_handlers=False)


asyncio.run(main(*sys.argv[2:]))
