"""AWS KMS as a Kms: the clients, opened once, and what is asked of them. Every answer is checked to be the key's own.

Caching, pacing and circuit breaking do not live here; a second attempt does, for a cut connection is no outage.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import NoCredentialsError

from kms.aws.answers import translating
from kms.aws.context import sent_context
from kms.aws.http import ATTEMPT_S, CONNECT_S, BoundedHttp
from kms.aws.uri import AwsUri, parse_uri
from kms.aws.workers import SpeakingFor, Workers, WorkerSessions
from kms.bounds import check_blob, check_context, check_key
from kms.errors import BadKey, Corrupt, Denied
from kms.naming import naming, unread
from kms.port import KEY_BYTES, Caller, Description, Kms, Wrap

ATTEMPTS = 2
"""One retry, for what fails fast: a cut connection, throttling, 5xx."""
POOL_MAX = 32
"""Most connections of a client."""

_CHECK_CONTEXT = {"app": "tokenbroker", "purpose": "check"}
"""Names the app, which policies ask for, and no cluster, which this key does not know."""


@asynccontextmanager
async def open_aws(uri: str) -> AsyncIterator[Kms]:
    """Open the key that `uri` names: its alias is resolved once, so a moved alias is another key at the next start.

    Credentials are loaded before anybody can use the client, as loading them concurrently is racy in the SDK.
    BadKey: the URI, or a key that is not symmetric for encryption. Disabled: there is no such key. Unavailable, Denied.
    """
    with naming(unread(uri)):
        where = parse_uri(uri)
    for library in ("botocore", "aiobotocore"):
        # At DEBUG they log whole requests and answers, and those hold keys; at INFO, what nobody asked.
        logging.getLogger(library).setLevel(logging.WARNING)
    async with AsyncExitStack() as stack:
        with naming(uri), translating():
            session = AioSession()
            kms = await stack.enter_async_context(_client(session, "kms", where.region, where.endpoint))
            credentials = await session.get_credentials()
            if credentials is None:
                raise NoCredentialsError
            await credentials.get_frozen_credentials()
            arn = _usable(await _metadata(kms, where.key), where)
            workers = None
            if where.role is not None:
                sts = await stack.enter_async_context(_client(session, "sts", where.region, where.sts_endpoint))
                speaking = AioSession()
                speaking.register_component("credential_provider", SpeakingFor())
                theirs = await stack.enter_async_context(_client(speaking, "kms", where.region, where.endpoint))
                sessions = WorkerSessions(sts=sts, role=where.role, external_id=where.external_id)
                workers = Workers(kms=theirs, sessions=sessions)
        yield AwsKms(uri=uri, where=where, kms=kms, arn=arn, workers=workers)


def _client(session: Any, service: str, region: str, endpoint: str | None) -> Any:
    # Endpoints come from the URI alone: it is recorded beside each wrap, and an environment is not. A proxy of the
    # environment may carry TLS; what is in the clear stays on this machine.
    in_the_clear = endpoint is not None and endpoint.startswith("http:")
    config = AioConfig(
        connect_timeout=CONNECT_S,
        read_timeout=ATTEMPT_S,
        retries={"mode": "adaptive", "total_max_attempts": ATTEMPTS},
        max_pool_connections=POOL_MAX,
        http_session_cls=BoundedHttp,
        warm_up_loader_caches=True,
        ignore_configured_endpoint_urls=True,
        proxies={} if in_the_clear else None,
    )
    return session.create_client(service, region_name=region, endpoint_url=endpoint, config=config)


async def _metadata(kms: Any, key: str) -> Mapping[str, Any]:
    answer = await kms.describe_key(KeyId=key)
    found = answer.get("KeyMetadata")
    if not found or not found.get("Arn") or not found.get("KeyState"):
        raise Corrupt("DescribeKey was answered without the key's ARN and state; check the option endpoint")
    metadata: Mapping[str, Any] = found
    return metadata


def _usable(metadata: Mapping[str, Any], where: AwsUri) -> str:
    """The key's ARN. BadKey: a key of another kind. Corrupt: another key than the URI names, unless by an alias."""
    spec, usage = metadata.get("KeySpec"), metadata.get("KeyUsage")
    if (spec, usage) != ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"):
        raise BadKey(f"only SYMMETRIC_DEFAULT keys for ENCRYPT_DECRYPT serve, and this is {spec} for {usage}")
    arn = str(metadata["Arn"])
    named = where.key.rpartition(":")[2].removeprefix("key/")
    if arn.split(":")[3:4] != [where.region] or not (named.startswith("alias/") or arn.endswith(f":key/{named}")):
        raise Corrupt("DescribeKey was answered for another key than it was asked for; check the option endpoint")
    return arn


class AwsKms:
    """One KMS key. Key versions are the key's id, as AWS does not say at Encrypt which key material it used."""

    def __init__(self, *, uri: str, where: AwsUri, kms: Any, arn: str, workers: Workers | None) -> None:
        self._uri = uri
        self._where = where
        self._kms = kms
        self._arn = arn
        self._key_id = arn.rpartition("/")[2]
        self._workers = workers

    def __repr__(self) -> str:
        return f"AwsKms({self._uri!r})"

    @property
    def uri(self) -> str:
        """As the port says."""
        return self._uri

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        """As the port says: Encrypt."""
        with naming(self._uri):
            check_key(key)
            sent = sent_context(check_context(context, or_raise=BadKey))
            with translating():
                answer = await self._kms.encrypt(KeyId=self._arn, Plaintext=key, EncryptionContext=sent)
            return self._wrap(answer)

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        """As the port says: Decrypt, with the caller's session if there is a caller. Denied: a caller without `role`.

        A multi-Region key opens what its related keys in other regions wrapped; they share its id.
        """
        with naming(self._uri):
            check_blob(wrap.blob)
            sent = sent_context(check_context(context, or_raise=Corrupt))
            if wrap.key_version not in ("", self._key_id):
                raise Corrupt("the wrapped key belongs to another KMS key; if an alias was moved, name the old key too")
            asked = {"KeyId": self._arn, "CiphertextBlob": wrap.blob, "EncryptionContext": sent}
            with translating():
                if caller is None:
                    return self._key(await self._kms.decrypt(**asked))
                if self._workers is None:
                    raise Denied("it has no option role, so it cannot decide for a worker; add one, or let the broker")
                return self._key(await self._workers.decrypt(caller, **asked))

    async def generate(self, context: Mapping[str, str]) -> tuple[bytes, Wrap]:
        """As the port says: GenerateDataKey."""
        with naming(self._uri):
            sent = sent_context(check_context(context, or_raise=BadKey))
            with translating():
                answer = await self._kms.generate_data_key(
                    KeyId=self._arn, NumberOfBytes=KEY_BYTES, EncryptionContext=sent
                )
            return self._key(answer), self._wrap(answer)

    async def check(self) -> None:
        """As the port says: a random key is wrapped and unwrapped. The role for workers is not asked."""
        sample = secrets.token_bytes(KEY_BYTES)
        if await self.unwrap(await self.wrap(sample, _CHECK_CONTEXT), _CHECK_CONTEXT) != sample:
            raise Corrupt("the key does not open what it wrapped", kms_key=self._uri)

    async def describe(self) -> Description:
        """As the port says: DescribeKey."""
        with naming(self._uri):
            with translating():
                found = await _metadata(self._kms, self._arn)
            return Description(
                provider="aws-kms",
                state=", ".join(_facts(found)),
                key_version=self._key_id,
                hsm=found.get("Origin") != "EXTERNAL_KEY_STORE",
                warnings=tuple(_warnings(found, self._where)),
            )

    def _wrap(self, answer: Mapping[str, Any]) -> Wrap:
        blob = self._own(answer).get("CiphertextBlob")
        if not isinstance(blob, bytes):
            raise Corrupt("it answered without a wrapped key; check the option endpoint")
        check_blob(blob)
        return Wrap(key_version=self._key_id, blob=blob)

    def _key(self, answer: Mapping[str, Any]) -> bytes:
        key = self._own(answer).get("Plaintext")
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            raise Corrupt(f"it answered without a key of {KEY_BYTES} bytes")
        return key

    def _own(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        if answer.get("KeyId") != self._arn:
            raise Corrupt("it answered for another key than it was asked for; check the option endpoint")
        return answer


def _facts(metadata: Mapping[str, Any]) -> Iterator[str]:
    yield str(metadata["KeyState"])
    yield f"origin {metadata.get('Origin', 'unknown')}"
    if metadata.get("MultiRegion"):
        yield f"multi-Region {metadata.get('MultiRegionConfiguration', {}).get('MultiRegionKeyType', 'key')}"


def _warnings(metadata: Mapping[str, Any], where: AwsUri) -> Iterator[str]:
    if metadata["KeyState"] == "PendingDeletion":
        yield f"the key is deleted for ever {_day(metadata.get('DeletionDate'))}; cancel that, or rewrap"
    elif metadata["KeyState"] != "Enabled":
        yield f"the key is {metadata['KeyState']} and serves nobody"
    if metadata.get("ExpirationModel") == "KEY_MATERIAL_EXPIRES":
        yield f"its imported key material expires {_day(metadata.get('ValidTo'))}; import it again before"
    if metadata.get("Origin") == "EXTERNAL_KEY_STORE":
        yield "the key lives in an external key store, whose hardware and uptime are not those of AWS"
    for name, url in (("endpoint", where.endpoint), ("sts-endpoint", where.sts_endpoint)):
        if url is not None and url.startswith("http:"):
            yield f"the option {name} is http: keys pass in the clear between the broker and whatever listens there"


def _day(instant: Any) -> str:
    return f"on {instant.date().isoformat()}" if instant is not None else "on an unknown day"
