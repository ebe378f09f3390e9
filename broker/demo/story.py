"""The plot of the demo: what runs, in which order things happen, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from broker.cli.client import open_client
from broker.cli.reach import Reach
from broker.demo.cast import Actor, on_stage
from broker.demo.chapters import CONTRACTOR, TEAM, TOKEN, Chapters
from broker.demo.installation import initialise, plain_environment, serving
from broker.demo.narrator import Narrator
from broker.demo.upstream import Upstream, open_upstream
from broker.demo.verdict import Verdict
from broker.profile import read_profile

SCENE_S: Final = 1.5
"""How long the workers are watched between two events."""
_TITLES: Final = ("worker", "has version", "calls", "refused", "state")


async def play(narrator: Narrator, monotonic: Callable[[], float]) -> Verdict:
    """Tell the whole story in a temporary folder, which is gone afterwards, as are all processes."""
    with tempfile.TemporaryDirectory(prefix="tokenbroker-demo-") as name:
        return await _play(narrator, Path(name), monotonic)


async def _play(narrator: Narrator, folder: Path, monotonic: Callable[[], float]) -> Verdict:
    data, outside = folder / "broker", folder / "outside"
    outside.mkdir()
    narrator.chapter("1. A broker")
    narrator.tell("Keys, database and the first admin are made; then the broker listens on a free port.")
    narrator.command("init --data-dir broker")
    await initialise(data)
    narrator.command("serve --data-dir broker")
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(data, outside / "broker.log"))
        narrator.tell(f"listening on {url}")
        upstream = await stack.enter_async_context(open_upstream(monotonic=monotonic))
        credential = read_profile(data / "profile.toml").credential
        client = await stack.enter_async_context(open_client(Reach(url=url, credential=credential, ca=None)))
        actors = {name: Actor(name=name) for name in (*TEAM, CONTRACTOR)}
        chapters = Chapters(narrator=narrator, client=client, upstream=upstream, actors=actors, monotonic=monotonic)
        narrator.chapter("2. A token, and who may have it")
        narrator.tell("Beside it runs somebody else's API, which accepts its current key and the one before.")
        await chapters.seal()
        await chapters.admit(outside)
        narrator.chapter("3. Three workers lease the key over WebSockets, and call the API with it all the time")
        async with _acting(actors, outside, url, upstream, monotonic):
            with narrator.watching(_TITLES, lambda: _rows(actors, upstream)):
                await chapters.begin()
                await _events(narrator, chapters)
            narrator.chapter("7. Who had what")
            await chapters.account()
        narrator.chapter("8. The audit log, away from the broker")
        await chapters.audit(outside, (await asyncio.to_thread((data / "audit.vkey").read_text)).strip())
        await chapters.search([data, outside])
    narrator.chapter("The verdict")
    narrator.verdict(chapters.verdict)
    return chapters.verdict


async def _events(narrator: Narrator, chapters: Chapters) -> None:
    """What happens while the workers call the API."""
    await asyncio.sleep(SCENE_S)
    narrator.chapter("4. The key is rotated, twice, under their hands")
    narrator.tell("Each new version is pushed to who holds the token, and each worker says when it uses it.")
    await chapters.rotate()
    await asyncio.sleep(SCENE_S)
    narrator.tell("Once more: now the first key is worthless, so whoever still used it would be refused.")
    await chapters.rotate()
    await asyncio.sleep(SCENE_S)
    narrator.chapter("5. A wrong key is rolled out, to a few first")
    narrator.tell("It belongs to another API. Whoever gets it says that it cannot use it.")
    await chapters.roll_out()
    narrator.chapter(f"6. {CONTRACTOR} leaves the project")
    await chapters.revoke()


@asynccontextmanager
async def _acting(
    actors: dict[str, Actor], folder: Path, url: str, upstream: Upstream, monotonic: Callable[[], float]
) -> AsyncIterator[None]:
    """All workers, each in a process of its own."""
    async with AsyncExitStack() as stage:
        for actor in actors.values():
            arguments = (url, folder / f"{actor.name}.key", TOKEN, upstream.url)
            log = folder / f"{actor.name}.log"
            await stage.enter_async_context(
                on_stage(actor, *arguments, environ=plain_environment(), log=log, monotonic=monotonic)
            )
        yield


def _rows(actors: dict[str, Actor], upstream: Upstream) -> list[tuple[object, ...]]:
    return [
        (name, actor.version or "-", upstream.accepted[name], upstream.refused[name], actor.state)
        for name, actor in actors.items()
    ]
