"""Tokens for single workers, made from a token role, so that the server's policies decide what a worker may unwrap.

A worker's token carries the policies `tokenbroker-worker-NAME` and `tokenbroker-group-GROUP`, and nothing else. What
they allow is the server's affair; that the worker is who it says is the broker's.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakValueDictionary

from kms.errors import Denied, KmsError
from kms.port import Caller
from kms.transit.errors import Forbidden, Step
from kms.transit.login import Authenticated, Nothing, checked_token
from kms.transit.server import CONNECTIONS_MAX, Server
from kms.transit.session import Session

WORKER_POLICY = "tokenbroker-worker-"
"""What the name of a worker's policy begins with."""
GROUP_POLICY = "tokenbroker-group-"
"""What the name of a group's policy begins with."""
TOKEN_TTL_S = 300
"""How long a worker's token lives."""
TOKENS_MAX = 1024
"""Most workers' tokens that are kept; beyond, the one that was used least recently is forgotten, and ends by itself."""
GROUPS_MAX = 256
"""Most groups of a caller."""
REVOKE_S = 5.0
"""How long revoking all of them at the end may take."""

# Upper case is left out: the server turns it into lower case, and two workers would share a policy.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_USED_UP = 0.8

T = TypeVar("T")
_Key = tuple[str, frozenset[str]]


@dataclass(kw_only=True, slots=True, eq=False)
class _WorkerToken:
    """refused: it was refused when it was new, so its policies say no, and another one would be refused as well."""

    token: str = field(repr=False)
    accessor: str = field(repr=False)
    use_until: float
    refused: bool = False


class WorkerTokens:
    """The tokens of workers at one server, each used for its worker alone."""

    def __init__(self, *, server: Server, session: Session, role: str) -> None:
        self._server = server
        self._session = session
        self._role = role
        self._tokens: OrderedDict[_Key, _WorkerToken] = OrderedDict()
        self._making: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"WorkerTokens(role={self._role!r})"

    async def use(self, caller: Caller, call: Callable[[str], Awaitable[T]]) -> T:
        """What `call` gives for a token of this worker; asked again with a new token if an older one is Forbidden.

        Denied: the worker's policies refuse, its names cannot be names of policies, or no token can be made for it.
        """
        policies = _policies(caller)
        key = (caller.worker, frozenset(caller.groups))
        known = self._usable(key)
        if known is not None and not known.refused:
            try:
                return await call(known.token)
            except Forbidden:
                # Its policies may have changed, or it may be a token no more; only a new one can tell.
                held = await self._make(key, policies, instead_of=known)
        else:
            held = known if known is not None else await self._make(key, policies, instead_of=None)
        try:
            answer = await call(held.token)
        except Forbidden:
            held.refused = True
            raise _refusal(caller) from None
        held.refused = False
        return answer

    async def revoke_all(self) -> None:
        """Revoke what is kept, as far as the server answers and lets us; what is left ends by itself."""
        tokens, self._tokens = self._tokens, OrderedDict()
        slots = asyncio.Semaphore(CONNECTIONS_MAX)
        try:
            async with asyncio.timeout(REVOKE_S), asyncio.TaskGroup() as tasks:
                for held in tokens.values():
                    tasks.create_task(self._revoke(held, slots))
        except TimeoutError:
            return

    def _usable(self, key: _Key) -> _WorkerToken | None:
        held = self._tokens.get(key)
        if held is None or asyncio.get_running_loop().time() >= held.use_until:
            return None
        self._tokens.move_to_end(key)
        return held

    async def _make(self, key: _Key, policies: list[str], *, instead_of: _WorkerToken | None) -> _WorkerToken:
        """A new token, kept; or the one that another call made meanwhile instead of `instead_of`."""
        lock = self._making.setdefault(key, asyncio.Lock())
        async with lock:
            held = self._usable(key)
            if held is not None and held is not instead_of:
                return held
            made = await self._ask_for(policies)
            self._tokens[key] = made
            self._tokens.move_to_end(key)
            while len(self._tokens) > TOKENS_MAX:
                self._tokens.popitem(last=False)
            return made

    async def _ask_for(self, policies: list[str]) -> _WorkerToken:
        body = {
            "policies": policies,
            "no_default_policy": True,
            "renewable": False,
            "ttl": f"{TOKEN_TTL_S}s",
            "explicit_max_ttl": f"{TOKEN_TTL_S}s",
            "display_name": "tokenbroker-worker",
        }
        path = f"auth/token/create/{self._role}"
        asked_at = asyncio.get_running_loop().time()
        try:
            auth = (
                await self._session.use(
                    lambda token: self._server.ask(
                        "POST", path, answer=Authenticated, step=Step.WORKER, token=token, body=body
                    )
                )
            ).auth
        except Forbidden:
            raise Denied(f"the broker's policy does not let it make tokens: allow update on {path}") from None
        if set(auth.policies or ()) != set(policies):
            raise Denied(
                f"the token role {self._role} gives other policies than it was asked for; see docs/howto/transit"
            )
        if auth.entity_id:
            # Its policies can change behind the token, and they are the broker's own.
            raise Denied(f"the token role {self._role} makes tokens with the broker's identity; set orphan=true on it")
        if not 0 < auth.lease_duration <= TOKEN_TTL_S:
            raise Denied(f"the token role {self._role} makes tokens that outlive {TOKEN_TTL_S} s; give it no period")
        return _WorkerToken(
            token=checked_token(auth.client_token),
            accessor=auth.accessor,
            use_until=asked_at + auth.lease_duration * _USED_UP,
        )

    async def _revoke(self, held: _WorkerToken, slots: asyncio.Semaphore) -> None:
        path = "auth/token/revoke-accessor"
        body = {"accessor": held.accessor}
        async with slots:
            try:
                await self._session.use(
                    lambda token: self._server.ask(
                        "POST", path, answer=Nothing, step=Step.WORKER, token=token, body=body
                    )
                )
            except (Forbidden, KmsError):
                return


def _policies(caller: Caller) -> list[str]:
    """The policies of a worker's token. Denied: a name cannot be part of a policy's name as it is."""
    if len(caller.groups) > GROUPS_MAX:
        raise Denied(f"a worker in more than {GROUPS_MAX} groups cannot be given a token; put it into fewer")
    for name in (caller.worker, *caller.groups):
        if _NAME.fullmatch(name) is None:
            raise Denied(
                f"the worker or group {name[:64]!r} cannot name a policy: 1 to 63 of a-z, 0-9, '.', '_' and '-', the"
                " first a letter or digit"
            )
    return [f"{WORKER_POLICY}{caller.worker}", *sorted({f"{GROUP_POLICY}{group}" for group in caller.groups})]


def _refusal(caller: Caller) -> Denied:
    return Denied(
        f"the server's policies do not let worker {caller.worker} unwrap; see the policy {WORKER_POLICY}{caller.worker}"
        " and those of its groups"
    )
