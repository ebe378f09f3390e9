"""The URI of an AWS KMS key: `aws-kms:KEY?region=R&endpoint=URL&role=ARN&external-id=ID&sts-endpoint=URL`.

Credentials are never in it: AWS SDKs find them. Whether the key exists and serves is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from kms.errors import BadKey
from kms.key_uri import decoded, is_loopback, split_uri

_EXAMPLE = "aws-kms:arn:aws:kms:eu-west-1:111122223333:key/… or aws-kms:alias/NAME?region=eu-west-1"
_OPTIONS = ("region", "endpoint", "role", "external-id", "sts-endpoint")
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]{2,12}){1,3}-[0-9]{1,2}", re.ASCII)
_KEY_ID = re.compile(r"(mrk-)?[0-9a-f-]{32,36}", re.ASCII)
_ALIAS = re.compile(r"alias/[A-Za-z0-9/_-]{1,250}", re.ASCII)
_ROLE = re.compile(r"arn:aws[a-z-]{0,20}:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}", re.ASCII)
_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class AwsUri:
    """Which key, and where to ask. key: ARN, id or alias, as AWS takes it for KeyId. role: assumed for each worker."""

    key: str
    region: str
    endpoint: str | None = None
    role: str | None = None
    external_id: str | None = None
    sts_endpoint: str | None = None


def parse_uri(uri: str) -> AwsUri:
    """Read `aws-kms:KEY?region=R&endpoint=URL&role=ARN&external-id=ID&sts-endpoint=URL`.

    BadKey: not an ARN of a KMS key or alias, nor an id or alias; no region, a malformed one, or another than the
    ARN's; an endpoint that is not https (http: loopback addresses only) or holds more than a host and a port; a role
    that is no role's ARN; an option that needs `role` without it.
    """
    what, options = split_uri(uri, scheme="aws-kms", example=_EXAMPLE, options=_OPTIONS)
    key = decoded(what)
    region = options.get("region")
    if key.startswith("arn:"):
        said = _region_of(key)
        if region not in (None, said):
            raise BadKey(f"the ARN names the region {said}, and the option region another one; leave the option out")
        region = said
    elif _KEY_ID.fullmatch(key) is None and _ALIAS.fullmatch(key) is None:
        raise BadKey("not a key ARN, a key id or alias/NAME")
    if region is None:
        raise BadKey("say in which region the key is: ?region=…, or its whole ARN; AWS_REGION is not asked")
    if _REGION.fullmatch(region) is None:
        raise BadKey("the option region is no AWS region; it reads like eu-west-1")
    role = options.get("role")
    if role is None and (needing := options.keys() & {"external-id", "sts-endpoint"}):
        raise BadKey(f"the option {min(needing)} has a meaning only beside role")
    if role is not None and _ROLE.fullmatch(role) is None:
        raise BadKey("the option role is no ARN of a role; it reads like arn:aws:iam::111122223333:role/NAME")
    if "external-id" in options and _EXTERNAL_ID.fullmatch(options["external-id"]) is None:
        raise BadKey("the option external-id has 2 to 1224 letters, digits and _+=,.@:/-")
    return AwsUri(
        key=key,
        region=region,
        endpoint=_endpoint("endpoint", options),
        role=role,
        external_id=options.get("external-id"),
        sts_endpoint=_endpoint("sts-endpoint", options),
    )


def _region_of(arn: str) -> str:
    parts = arn.split(":", 5)
    if len(parts) != 6:
        raise BadKey(f"an ARN has six parts between colons, and this has {len(parts)}")
    _, partition, service, region, account, resource = parts
    if service != "kms":
        raise BadKey("the ARN is of another service than kms")
    if re.fullmatch(r"aws[a-z-]{0,20}", partition) is None or _REGION.fullmatch(region) is None:
        raise BadKey("the ARN names no AWS partition and region")
    if re.fullmatch(r"[0-9]{12}", account) is None:
        raise BadKey("the ARN names no account of 12 digits")
    kind, _, key_id = resource.partition("/")
    if _ALIAS.fullmatch(resource) is None and (kind != "key" or _KEY_ID.fullmatch(key_id) is None):
        raise BadKey("the ARN ends in key/ID or alias/NAME")
    return region


def _endpoint(name: str, options: Mapping[str, str]) -> str | None:
    url = options.get(name)
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise BadKey(f"the option {name} is no URL") from None
    if "@" in parts.netloc:
        raise BadKey(f"the option {name} holds a user or password; credentials come from where AWS SDKs find them")
    if not host or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise BadKey(f"the option {name} reads https://HOST or https://HOST:PORT")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise BadKey(f"the option {name} is https; http is for loopback addresses only")
    # Put together anew: parsing has passed over upper case and characters that a client may take otherwise.
    return f"{parts.scheme}://{parts.netloc}"
