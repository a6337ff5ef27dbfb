"""The thread that writes runs down: one piece of work that fails is told, the others go on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import sqlalchemy

from hostler.runs import open_runs
from hostler.runs_recorder import Writer


async def test_work_that_is_itself_wrong_is_told_and_the_rest_is_done(tmp_path: Path) -> None:
    done: list[int] = []

    def good(connection: Any) -> None:
        done.append(connection.execute(sqlalchemy.text("SELECT 1")).scalar_one())

    with open_runs(f"sqlite:///{tmp_path}/runs.sqlite") as runs:
        writer = Writer(runs)
        async with asyncio.timeout(30):
            work = (good, lambda _: json.dumps({1}), good)
            told = await asyncio.gather(*map(writer.do, work), return_exceptions=True)
            await writer.do(good)
            await writer.close()
    assert [type(each) for each in told] == [type(None), TypeError, type(None)]
    assert done[-3:] == [1, 1, 1]


async def test_it_ends_after_what_is_waiting(tmp_path: Path) -> None:
    with open_runs(f"sqlite:///{tmp_path}/runs.sqlite") as runs:
        writer = Writer(runs)
        waiting = asyncio.ensure_future(writer.do(lambda _: None))
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await writer.close()
            await waiting
