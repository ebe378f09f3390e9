"""Asks KMS in the name of one worker: a role is assumed with session tags, and its credentials sign that call alone.

Which tags open which key is for the key's policy to say (docs/howto/aws-kms.md); nothing is decided here.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any
from weakref import WeakValueDictionary

from aiobotocore.credentials import AioCredentials
from botocore.exceptions import ClientError

from kms.aws.answers import translating
from kms.errors import Denied
from kms.port import Caller

SESSION_S = 900
"""How long an assumed role lasts: the shortest that STS gives."""
SESSION_MARGIN_S = 120
SESSIONS_MAX = 1024
"""Most workers whose sessions are kept; the one that was used longest ago goes first."""
TAG_CHARS_MAX = 256
"""Longest value of a session tag (STS API reference, Tag)."""

_EXPIRED = ("ExpiredToken", "ExpiredTokenException")
_TAG = re.compile(r"[\w .:/=+@-]+", re.ASCII)
_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)

_Tags = tuple[tuple[str, str], ...]


def session_tags(caller: Caller) -> dict[str, str]:
    """The session tags `worker`, and `groups` as `:a:b:` (`:` for none), which `*:a:*` matches in a policy.

    Denied: a name or all groups together do not fit into a tag; they are never cut or changed.
    """
    if any(not group or ":" in group for group in caller.groups):
        raise Denied("a group's name is empty or holds a colon, so the tag `groups` could not say it")
    tags = {"worker": caller.worker, "groups": ":".join(("", *sorted(set(caller.groups)), ""))}
    for name, value in tags.items():
        if len(value) > TAG_CHARS_MAX:
            raise Denied(
                f"the session tag {name} has at most {TAG_CHARS_MAX} characters, and this worker's {len(value)};"
                " put the worker into fewer groups, or shorten their names"
            )
        if _TAG.fullmatch(value) is None:
            raise Denied(f"the session tag {name} holds letters, digits, spaces and _.:/=+@- only")
    return tags


class WorkerSessions:
    """Credentials of the assumed role, for one worker and its groups each; never given to another.

    now: monotonic seconds. A session is used until 120 s before its end.
    """

    def __init__(
        self, *, sts: Any, role: str, external_id: str | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._sts = sts
        self._asked = {"RoleArn": role, "DurationSeconds": SESSION_S}
        if external_id is not None:
            self._asked["ExternalId"] = external_id
        self._now = now
        self._held: OrderedDict[_Tags, tuple[float, Any]] = OrderedDict()
        self._assuming: WeakValueDictionary[_Tags, asyncio.Lock] = WeakValueDictionary()

    async def credentials(self, caller: Caller, *, instead_of: Any = None) -> Any:
        """The credentials that speak for `caller`, other ones than `instead_of`, which were refused as ended.

        Raises Denied (also for what no tag can say), Unavailable. Calls that want them at once share one session.
        """
        tags = session_tags(caller)
        key = tuple(tags.items())
        lock = self._assuming.setdefault(key, asyncio.Lock())
        async with lock:
            until, credentials = self._held.get(key, (0.0, None))
            if credentials is instead_of or self._now() >= until:
                until = self._now() + SESSION_S - SESSION_MARGIN_S
                credentials = await self._assume(tags)
                self._held[key] = (until, credentials)
            self._held.move_to_end(key)
            while len(self._held) > SESSIONS_MAX:
                self._held.popitem(last=False)
        return credentials

    async def _assume(self, tags: Mapping[str, str]) -> Any:
        name = f"@{tags['worker']}"
        if _SESSION_NAME.fullmatch(name) is None:
            raise Denied("the worker's name does not fit into the name of an STS session (63 characters, \\w+=,.@-)")
        with translating():
            answer = await self._sts.assume_role(
                **self._asked, RoleSessionName=name, Tags=[{"Key": key, "Value": tags[key]} for key in tags]
            )
        given = answer.get("Credentials") or {}
        parts = [given.get(part) for part in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
        if not all(parts):
            raise Denied("AssumeRole was answered without credentials; check the option sts-endpoint")
        return AioCredentials(*parts, method="tokenbroker-worker")


_SPEAKING: ContextVar[Any] = ContextVar("_SPEAKING")


class SpeakingFor(AioCredentials):  # type: ignore[misc]  # aiobotocore carries no types
    """Credentials of a client that signs each call with what the task around it set, and fails where it set none.

    Its own keys are empty: there is nothing that one worker's call could fall back to.
    """

    def __init__(self) -> None:
        super().__init__("", "", method="tokenbroker-worker")

    async def load_credentials(self) -> SpeakingFor:
        """Itself: it is its own credential provider."""
        return self

    async def get_frozen_credentials(self) -> Any:
        """What signs this call. LookupError: nobody is spoken for."""
        return await _SPEAKING.get().get_frozen_credentials()


class Workers:
    """Decrypts for single workers, each with its own session of the assumed role."""

    def __init__(self, *, kms: Any, sessions: WorkerSessions) -> None:
        self._kms = kms
        self._sessions = sessions

    async def decrypt(self, caller: Caller, **asked: Any) -> Any:
        """What KMS answers to `caller`. A session that ended early is replaced once."""
        credentials = await self._sessions.credentials(caller)
        try:
            return await self._decrypt(credentials, asked)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") not in _EXPIRED:
                raise
        return await self._decrypt(await self._sessions.credentials(caller, instead_of=credentials), asked)

    async def _decrypt(self, credentials: Any, asked: Mapping[str, Any]) -> Any:
        before = _SPEAKING.set(credentials)
        try:
            return await self._kms.decrypt(**asked)
        finally:
            _SPEAKING.reset(before)
