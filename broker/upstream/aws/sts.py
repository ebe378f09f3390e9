"""The issuer `aws-sts`: a session of an IAM role for each lease, named and tagged after the lease and its worker.

AWS ends no single session before its time. So a value that was released or revoked works on until then, and the shorter
`duration_s` is, the sooner it does not. What can be done at once is in docs/howto/issue-database-users.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from aiobotocore.session import AioSession

from broker.secret import Secret
from broker.upstream.aws.client import (
    CONTENT_TYPE,
    CREDENTIAL,
    AwsTerms,
    ProcessCredentials,
    check_endpoint,
    open_client,
    open_sdk,
    signing_key,
    write_key,
)
from broker.upstream.errors import EndsByItself, Failed
from broker.upstream.port import Issued, Issuer, Site, Wanted
from broker.upstream.terms import read_terms, require_credentials

DURATION_S_MIN = 900
"""AWS's shortest session."""
UNTIL = "until"
"""In the handle: when the session ends, once that is known."""
_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
_NOT_IN_TAGS = re.compile(r"[^\w .:/=+@-]", re.ASCII)


class StsTerms(AwsTerms, frozen=True, kw_only=True):
    """Settings. duration_s: the longest session; one is as long as its lease may live, but 900 s at least.

    tags: `yes` tags sessions with token, worker and lease, which the role must allow (sts:TagSession). policy: a policy
    of the session (JSON), which takes from what the role may do.
    """

    role_arn: Annotated[str, msgspec.Meta(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]{1,512}\Z")]
    duration_s: Annotated[int, msgspec.Meta(ge=DURATION_S_MIN, le=43_200)] = 3600
    external_id: Annotated[str, msgspec.Meta(max_length=1224)] = ""
    policy: Annotated[str, msgspec.Meta(max_length=2048)] = ""
    tags: Literal["yes", "no"] = "yes"


@asynccontextmanager
async def open_aws_sts(site: Site) -> AsyncIterator[Issuer]:
    """The issuer; clients are opened by each call."""
    yield AwsSts(sdk=open_sdk(), site=site)


class AwsSts:
    """As the port says."""

    def __init__(self, *, sdk: AioSession, site: Site) -> None:
        self._sdk = sdk
        self._site = site

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        """As the port says."""
        check_endpoint(read_terms(StsTerms, settings), self._site)
        require_credentials(credentials, optional=(CREDENTIAL,))

    def handle(self, wanted: Wanted) -> Mapping[str, str]:
        """As the port says: the name of the session, which CloudTrail shows for each call made with it."""
        if _NAME.fullmatch(wanted.lease) is not None:
            return {"session": wanted.lease}
        return {"session": hashlib.sha256(wanted.lease.encode()).hexdigest()[:32]}

    async def issue(self, wanted: Wanted) -> Issued:
        """As the port says. What an attempt before was given nobody knows, and it ends by itself."""
        terms = read_terms(StsTerms, wanted.settings)
        asked: dict[str, Any] = {
            "RoleArn": terms.role_arn,
            "RoleSessionName": self.handle(wanted)["session"],
            "DurationSeconds": max(DURATION_S_MIN, min(int(wanted.ttl_s), terms.duration_s)),
        }
        if terms.external_id:
            asked["ExternalId"] = terms.external_id
        if terms.policy:
            asked["Policy"] = terms.policy
        if terms.tags == "yes":
            told = {"tokenbroker-token": wanted.token, "tokenbroker-worker": wanted.worker}
            told["tokenbroker-lease"] = wanted.lease
            asked["Tags"] = [{"Key": key, "Value": _NOT_IN_TAGS.sub("_", text)[:256]} for key, text in told.items()]
        async with open_client(self._sdk, "sts", terms, signing_key(wanted), site=self._site) as client:
            return self._issued(await client.assume_role(**asked), self.handle(wanted))

    async def revoke(self, wanted: Wanted, handle: Mapping[str, str], value: Secret | None) -> None:
        """As the port says: nothing is asked of AWS. What was lost before anybody knew its end counts as gone."""
        until = handle.get(UNTIL)
        if until is not None and (at := datetime.fromisoformat(until)) > self._site.clock.now():
            raise EndsByItself("AWS ends no single session of a role before its time", at=at)

    def _issued(self, answer: Mapping[str, Any], handle: Mapping[str, str]) -> Issued:
        try:
            given = answer["Credentials"]
            ends_at = given["Expiration"].astimezone(UTC)
            key = ProcessCredentials(
                version=1,
                access_key_id=given["AccessKeyId"],
                secret_access_key=given["SecretAccessKey"],
                session_token=given["SessionToken"],
                expiration=ends_at.isoformat(),
            )
        except (KeyError, AttributeError, TypeError):
            raise Failed("AWS answered AssumeRole without credentials, or without their end") from None
        return Issued(
            value=write_key(key),
            content_type=CONTENT_TYPE,
            ends_at=ends_at,
            handle={**handle, "access_key": key.access_key_id, UNTIL: ends_at.isoformat()},
        )
