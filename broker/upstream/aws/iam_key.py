"""The rotator `aws-iam-key`: the two access keys that an IAM user can have take turns.

`create` makes the second key, `finish` deactivates and deletes the first. IAM says of no key who made it or why. So
that a key of a crashed attempt is told from one that people made, `create` first writes into a tag of the user which
keys were there when the rotation began: whatever comes to it is the rotation's own, and nothing else is ever deleted
but the value from before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError

from broker.secret import Secret
from broker.upstream.aws.client import (
    CONTENT_TYPE,
    CREDENTIAL,
    AwsTerms,
    ProcessCredentials,
    check_endpoint,
    code_of,
    open_client,
    open_sdk,
    read_key,
    signing_key,
    write_key,
)
from broker.upstream.errors import BadSettings, Refused
from broker.upstream.port import Made, Rotation, Rotator, Site
from broker.upstream.terms import read_terms, require_credentials

TAG = "tokenbroker-rotation"
"""Of the user, while a rotation goes on: its id, and the keys that were there when it began, with spaces between."""
KEYS_MAX = 2
"""How many keys IAM allows a user."""
PAUSES_S = (0.5, 1.0, 2.0, 4.0)
"""How long `test` waits for a new key to be known everywhere: IAM is eventually consistent, mostly within seconds."""
_NOT_KNOWN_YET = ("InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch")


class KeyTerms(AwsTerms, frozen=True, kw_only=True):
    """Settings. user: the IAM user whose keys take turns."""

    user: Annotated[str, msgspec.Meta(pattern=r"^[\w+=,.@-]{1,64}\Z")]


@asynccontextmanager
async def open_aws_iam_key(site: Site) -> AsyncIterator[Rotator]:
    """The rotator; clients are opened by each call."""
    yield AwsIamKey(sdk=open_sdk(), site=site)


class AwsIamKey:
    """As the port says."""

    def __init__(self, *, sdk: AioSession, site: Site) -> None:
        self._sdk = sdk
        self._site = site

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        """As the port says."""
        check_endpoint(read_terms(KeyTerms, settings), self._site)
        require_credentials(credentials, optional=(CREDENTIAL,))

    async def create(self, rotation: Rotation, current: Secret | None) -> Made:
        """As the port says. Refused: the user has two keys that this rotation did not make."""
        in_use = None if current is None else _key_of(current).access_key_id
        async with self._asking(rotation) as user:
            present = await user.keys()
            before = await user.keys_before()
            if before is None:
                await user.remember(present)
                before = present
            for orphan in present - before - {in_use}:
                await user.delete(orphan)
            kept = present & (before | {in_use})
            if len(kept) >= KEYS_MAX:
                raise Refused(
                    f"the user {user.name} has two keys already, {' and '.join(sorted(kept))}, and AWS allows no "
                    "third; delete the one that nobody uses"
                )
            made = await user.make()
        return Made(value=write_key(made), content_type=CONTENT_TYPE, notes={"access_key_id": made.access_key_id})

    async def set(self, rotation: Rotation, new: Secret, current: Secret | None) -> None:
        """As the port says: AWS knows the key, as it made it."""

    async def test(self, rotation: Rotation, new: Secret) -> None:
        """As the port says: asks STS, which every key may, whose the key is."""
        terms, key = read_terms(KeyTerms, rotation.settings), _key_of(new)
        async with open_client(self._sdk, "sts", terms, key, site=self._site) as sts:
            arn = await self._whose(sts)
        if not arn.endswith(f"/{terms.user}") or ":user/" not in arn:
            raise Refused(f"AWS does not take the new key for one of the user {terms.user}")

    async def finish(self, rotation: Rotation, new: Secret, former: Secret | None) -> None:
        """As the port says: the former key is deactivated, then deleted."""
        ended, kept = None if former is None else _key_of(former).access_key_id, _key_of(new).access_key_id
        async with self._asking(rotation) as user:
            if ended is not None and ended != kept:
                await user.delete(ended)
            await user.forget()

    async def abandon(self, rotation: Rotation, new: Secret | None) -> None:
        """As the port says: deletes the new key, and one of a crashed attempt."""
        async with self._asking(rotation) as user:
            before = await user.keys_before()
            own = set() if before is None else await user.keys() - before
            if new is not None and (before is None or _key_of(new).access_key_id not in before):
                own.add(_key_of(new).access_key_id)
            for key in own:
                await user.delete(key)
            await user.forget()

    @asynccontextmanager
    async def _asking(self, rotation: Rotation) -> AsyncIterator[_User]:
        terms = read_terms(KeyTerms, rotation.settings)
        async with open_client(self._sdk, "iam", terms, signing_key(rotation), site=self._site) as iam:
            yield _User(iam=iam, name=terms.user, rotation=rotation.id)

    async def _whose(self, sts: Any) -> str:
        for pause_s in (*PAUSES_S, None):
            try:
                return str((await sts.get_caller_identity())["Arn"])
            except ClientError as error:
                if code_of(error) not in _NOT_KNOWN_YET:
                    raise
            if pause_s is not None:
                await self._site.clock.sleep(pause_s)
        raise Refused("AWS does not take the new key; if it was made just now, it may not be known everywhere yet")


class _User:
    """One IAM user, as one rotation sees it."""

    def __init__(self, *, iam: Any, name: str, rotation: str) -> None:
        self._iam = iam
        self._rotation = rotation
        self.name = name

    async def keys(self) -> set[str]:
        """The ids of its keys."""
        answer = await self._iam.list_access_keys(UserName=self.name)
        return {str(key["AccessKeyId"]) for key in answer["AccessKeyMetadata"]}

    async def keys_before(self) -> set[str] | None:
        """Which keys were there when this rotation began; None: it has not yet."""
        answer = await self._iam.list_user_tags(UserName=self.name, MaxItems=100)
        for tag in answer["Tags"]:
            rotation, *keys = str(tag["Value"]).split(" ")
            if tag["Key"] == TAG and rotation == self._rotation:
                return set(keys)
        return None

    async def remember(self, keys: set[str]) -> None:
        """Write down that these were there when this rotation began."""
        value = " ".join((self._rotation, *sorted(keys)))
        await self._iam.tag_user(UserName=self.name, Tags=[{"Key": TAG, "Value": value}])

    async def forget(self) -> None:
        """Take that note away."""
        if await self.keys_before() is not None:
            await self._iam.untag_user(UserName=self.name, TagKeys=[TAG])

    async def make(self) -> ProcessCredentials:
        """A new key."""
        made = (await self._iam.create_access_key(UserName=self.name))["AccessKey"]
        return ProcessCredentials(
            version=1, access_key_id=str(made["AccessKeyId"]), secret_access_key=str(made["SecretAccessKey"])
        )

    async def delete(self, key: str) -> None:
        """Deactivate a key, then delete it; one that is gone counts as deleted."""
        try:
            await self._iam.update_access_key(UserName=self.name, AccessKeyId=key, Status="Inactive")
            await self._iam.delete_access_key(UserName=self.name, AccessKeyId=key)
        except ClientError as error:
            if code_of(error) != "NoSuchEntity":
                raise


def _key_of(value: Secret) -> ProcessCredentials:
    key = read_key(value)
    if key is None:
        raise BadSettings(
            'the value is no access key; put it as {"Version": 1, "AccessKeyId": "…", "SecretAccessKey": "…"}'
        )
    return key
