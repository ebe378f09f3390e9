"""The issuers `oauth2` and `aws-sts` keep the laws, with servers on real sockets."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import botocore.exceptions
import botocore.session
import pytest

from broker.clock import SystemClock
from broker.secret import Secret
from broker.upstream.catalog import open_issuer
from broker.upstream.conformance import BadTerms, IssuerLaws, IssuerWorld
from broker.upstream.port import Site


@dataclass(kw_only=True)
class AuthorizationWorld(IssuerWorld):
    """One client of an authorization server."""

    server: Any

    async def works(self, value: Secret) -> bool:
        return value.reveal().decode() in self.server.access

    async def live(self) -> int:
        return len(self.server.access) - 1


@asynccontextmanager
async def authorization_world(module: ModuleType, *, revokes: bool) -> AsyncIterator[AuthorizationWorld]:
    """A world around a fresh server."""
    async with module.authorising() as server:
        server.auth = "basic"
        settings = {
            "token_url": f"{server.url}/token",
            "client_id": server.client_id,
            "client_auth": "basic",
            "scope": "read",
        }
        if revokes:
            settings["revoke_url"] = f"{server.url}/revoke"
        named = {"client_secret": "laws/secret"}

        def bad(names: str, **changed: str) -> BadTerms:
            return BadTerms(names=names, settings={**settings, **changed}, credentials=named)

        async with open_issuer("oauth2", Site(clock=SystemClock(), hosts=frozenset({"127.0.0.1"}))) as issuer:
            yield AuthorizationWorld(
                server=server,
                issuer=issuer,
                lapses=True,
                revokes=revokes,
                settings=settings,
                credentials={"client_secret": Secret(server.client_secret.encode())},
                wrong_credentials={"client_secret": Secret(b"none-that-it-knows")},
                bystander=Secret(server.issue().encode()),
                bad_terms=(
                    bad("token_url", token_url="http://elsewhere.example/token"),
                    bad("revoke_url", revoke_url="/revoke"),
                    bad("client_id", client_id=""),
                    bad("client_auth", client_auth="none"),
                    bad("colour", colour="red"),
                    BadTerms(names="client_secret", settings=settings, credentials={}),
                ),
            )


class TestOAuth2(IssuerLaws):
    """A server that revokes."""

    name: ClassVar[str] = "oauth2"

    @pytest.fixture
    async def world(self, oauth2_standin: ModuleType) -> AsyncIterator[IssuerWorld]:
        """A fresh server."""
        async with authorization_world(oauth2_standin, revokes=True) as world:
            yield world


class TestOAuth2WithoutRevocation(IssuerLaws):
    """A server whose tokens end by themselves."""

    name: ClassVar[str] = "oauth2"

    @pytest.fixture
    async def world(self, oauth2_standin: ModuleType) -> AsyncIterator[IssuerWorld]:
        """A fresh server."""
        async with authorization_world(oauth2_standin, revokes=False) as world:
            yield world


@dataclass(kw_only=True)
class RoleWorld(IssuerWorld):
    """One role of an account. The server forgets none of its sessions, so none can be counted."""

    url: str

    async def works(self, value: Secret) -> bool:
        key = json.loads(value.reveal())
        sts = botocore.session.Session().create_client(
            "sts",
            region_name="us-east-1",
            endpoint_url=self.url,
            aws_access_key_id=key["AccessKeyId"],
            aws_secret_access_key=key["SecretAccessKey"],
            aws_session_token=key["SessionToken"],
        )
        try:
            return "assumed-role/laws" in sts.get_caller_identity()["Arn"]
        except botocore.exceptions.ClientError:
            return False

    async def live(self) -> int:
        return 0


class TestAwsSts(IssuerLaws):
    """Sessions of a role, on moto."""

    name: ClassVar[str] = "aws-sts"

    @pytest.fixture
    async def world(self, moto: Any, aws_environment: None) -> AsyncIterator[IssuerWorld]:
        """A role of its own."""
        name = f"laws-{secrets.token_hex(4)}"
        account = botocore.session.Session()
        iam = account.create_client("iam", region_name="us-east-1", endpoint_url=moto.url)
        trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}]}
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        settings = {"role_arn": arn, "endpoint": moto.url}

        def bad(names: str, **changed: str) -> BadTerms:
            return BadTerms(names=names, settings={**settings, **changed}, credentials={})

        async with open_issuer("aws-sts", Site(clock=SystemClock(), hosts=frozenset({"127.0.0.1"}))) as issuer:
            yield RoleWorld(
                url=moto.url,
                issuer=issuer,
                revokes=False,
                lapses=True,
                settings=settings,
                bad_terms=(
                    bad("role_arn", role_arn="arn:aws:iam::123:role/x"),
                    bad("duration_s", duration_s="60"),
                    bad("endpoint", endpoint="http://elsewhere.example"),
                    bad("tags", tags="perhaps"),
                    bad("colour", colour="red"),
                    BadTerms(names="secret", settings=settings, credentials={"secret": "x/y"}),
                ),
            )

    async def test_a_session_tells_whose_it_is_and_when_it_ends(self, world: IssuerWorld) -> None:
        """It is named after its lease, and lives no longer than the lease can, but the 15 minutes that AWS gives."""
        wanted = self._wanted(world)
        issued = await world.issuer.issue(wanted)
        assert issued.handle["session"] == world.issuer.handle(wanted)["session"]
        assert issued.ends_at is not None
        left_s = (issued.ends_at - SystemClock().now()).total_seconds()
        assert 840 < left_s <= 901
