"""Secrets that people put into key URIs: refused, and repeated in no message."""

from __future__ import annotations

import traceback

import pytest

from kms.catalog import open_kms
from kms.errors import BadKey

ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.mark.parametrize(
    "uri",
    [
        "canary",
        "canary-without-a-scheme/and=more",
        "transit:https://root:canary@vault.example:8200/transit/tokens",
        "transit:https://root:can?ary@vault.example:8200/transit/tokens",
        "transit:root:canary@vault.example:8200/transit/tokens",
        "transit:https://vault.example:8200/transit/tokens?canary",
        "transit:https://vault.example:8200/transit/tokens?hvs.canary=",
        "transit:https://vault.example:8200/transit/tokens?token=canary",
        "transit:https://vault.example:8200/transit/tokens#canary",
        "azure-kv:https://user:canary@team.vault.azure.net/keys/broker",
        "azure-kv:https://team.vault.azure.net/keys/broker?canary",
        "azure-kv:https://team.vault.azure.net/keys/broker#canary",
        "gcp-kms:https://user:canary@cloudkms.googleapis.com/projects/p",
        f"aws-kms:AKIA:canary@{ARN}",
        f"aws-kms:{ARN}?endpoint=https://user:canary@kms.example",
        f"aws-kms:{ARN}?secret-access-key=canary",
        "pkcs11:token=t;object=o?module-path=/lib/hsm.so&pin-value=canary",
        "pkcs11:token=t;pin-value=canary;object=o?module-path=/lib/hsm.so&pin-source=file:/pin",
        "pkcs11:token=t;object=o;PIN-VALUE=canary?module-path=/lib/hsm.so&pin-source=file:/pin",
        "pkcs11:canary?module-path=/lib/hsm.so&pin-source=file:/pin",
        "recovery:TBR1 CANARY CANARY",
        "recovery:canary",
        "recovery:TBR1?private-key=canary",
        "local:/srv/kms.key?passphrase=canary",
        "local:/srv/kms.key?canary",
    ],
)
async def test_a_secret_in_a_key_uri_is_refused_and_not_repeated(uri: str) -> None:
    """Neither the message, nor the name of the key beside it, nor a traceback holds it."""
    with pytest.raises(BadKey) as refused:
        async with open_kms(uri):
            pass
    chain: BaseException | None = refused.value
    while chain is not None:
        said = f"{chain!s} {chain!r} {getattr(chain, 'kms_key', '')}".lower()
        assert not any(part in said for part in ("canary", "can?ary", ":can"))
        chain = chain.__cause__ or chain.__context__
    assert "canary" not in "".join(
        line for line in traceback.format_exception(refused.value) if not line.lstrip().startswith(("File", '"'))
    )
