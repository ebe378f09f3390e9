"""A writer that is torn down in the middle of a group leaves nobody waiting, and lets itself be closed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from storage.errors import Unavailable
from storage.group_commit import Committer
from storage.work import Outcome, Work

WORK = Work(inserts={}, updates={}, deletes={}, expects={}, append=None, feed=(), items=0)


def _committer(submit: object) -> Committer:
    return Committer(submit=submit, announced=lambda _: None, answer_s=60)  # type: ignore[arg-type] - one of those below


async def test_a_group_that_is_cancelled_is_unknown_to_its_callers() -> None:
    """They are told at once that it may exist, and closing returns."""
    job: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
    committer = _committer(lambda _: job)
    commit = asyncio.ensure_future(committer.commit(WORK))  # noqa: TID251 - no group: it ends by an error
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    job.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match="may or may not exist"):
            await commit
        await committer.close()


async def test_a_group_of_tasks_that_ends_takes_no_commits() -> None:
    """A commit that comes then is refused, and closing returns."""

    def submit(_: Sequence[Work]) -> asyncio.Future[list[Outcome]]:
        raise RuntimeError("TaskGroup is shutting down")

    committer = _committer(submit)
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match="closed"):
            await committer.commit(WORK)
        await committer.close()
