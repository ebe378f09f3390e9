"""KMS keys that decide per worker, each told by its own means whom it serves: a policy file, session tags, policies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from kms.local import create_key_file


class Decider(Protocol):
    """One KMS key. uri: with what it needs to decide. counts: requests by what they asked, where there is a proxy."""

    uri: str
    proxy: Any

    async def allow(self, workers: set[str], groups: set[str]) -> None:
        """Serve these workers and members of these groups, and no other, from the next call on."""
        ...


class ByPolicyFile:
    """A local key with a policy file."""

    proxy = None

    def __init__(self, folder: Path) -> None:
        create_key_file(folder / "judge.key")
        self._policy = folder / "policy.toml"
        self._write(set(), set())
        self.uri = f"local:{folder / 'judge.key'}?policy={self._policy}"

    async def allow(self, workers: set[str], groups: set[str]) -> None:
        self._write(workers, groups)

    def _write(self, workers: set[str], groups: set[str]) -> None:
        fresh = self._policy.with_suffix(".fresh")
        fresh.touch(mode=0o600)
        fresh.write_text(
            'format = "tokenbroker/kms-local-policy/v1"\n[[allow]]\nkeyrings = ["judged"]\n'
            f"workers = {sorted(workers)}\ngroups = {sorted(groups)}\n"
        )
        fresh.replace(self._policy)


class BySessionTags:
    """A key of the stand-in for AWS, which decides by the tags of the session that asks."""

    def __init__(self, standin: Any, proxy: Any) -> None:
        self._key = standin.key
        self.proxy = proxy
        self.uri = standin.uri(standin.key, role=True).replace(standin.url, proxy.url)

    async def allow(self, workers: set[str], groups: set[str]) -> None:
        self._key.workers, self._key.groups = set(workers), set(groups)


class ByPolicies:
    """A transit key of a real server, which decides by the policies of the token that asks."""

    def __init__(self, transit_key: Any, proxy: Any) -> None:
        self._bao, self._key = transit_key.bao, transit_key
        self._bao.token_role(transit_key.mount)
        self._granted: set[str] = set()
        self.proxy = proxy
        self.uri = transit_key.uri(worker_role=transit_key.mount, token_file=self._token())
        self.uri = self.uri.replace(self._bao.url, proxy.url)

    def _token(self) -> Path:
        path: Path = self._key.file("token", self._bao.token(self._key.mount))
        return path

    async def allow(self, workers: set[str], groups: set[str]) -> None:
        await asyncio.to_thread(self._allow, workers, groups)

    def _allow(self, workers: set[str], groups: set[str]) -> None:
        wanted = {f"tokenbroker-worker-{name}" for name in workers} | {f"tokenbroker-group-{name}" for name in groups}
        for policy in self._granted - wanted:
            self._bao.drop_policy(policy)
        for policy in wanted:
            self._bao.policy(policy, {f"{self._key.mount}/decrypt/{self._key.key}": ["update"]})
        self._granted = wanted


@asynccontextmanager
async def by_session_tags(aws_standin: Any, proxies: Any) -> AsyncIterator[Decider]:
    """AWS KMS, played by the stand-in, behind a proxy that counts."""
    async with aws_standin.standing() as standin, proxies.FaultProxy(standin.url) as proxy:
        yield BySessionTags(standin, proxy)


@asynccontextmanager
async def by_policies(bao: Any, bao_servers: Any, proxies: Any, folder: Path) -> AsyncIterator[Decider]:
    """Transit of a real OpenBao server, behind a proxy that counts; policies are dropped at the end."""
    async with proxies.FaultProxy(bao.url) as proxy:
        decider = ByPolicies(bao_servers.TransitKey(bao=bao, folder=folder), proxy)
        try:
            yield decider
        finally:
            await decider.allow(set(), set())


@asynccontextmanager
async def by_policy_file(folder: Path) -> AsyncIterator[Decider]:
    """A local key."""
    yield ByPolicyFile(folder)
