"""Whether each KMS key opens, answers and is kept well, and what an installation can do without those that do not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack

from broker.doctor.findings import Finding, failed, ok, warning
from broker.foundations import places_of
from broker.settings import Settings
from kms.catalog import open_kms
from kms.errors import BadKey, Denied, Disabled, KmsError
from kms.port import Description, Kms, wraps_only

Asked = Description | KmsError


async def examine_kms(settings: Settings, stack: AsyncExitStack, keys: list[Kms]) -> AsyncIterator[Finding]:
    """Ask every configured KMS key; those that can be opened go into `keys`, also when they do not answer now."""
    lists = _lists(settings)
    asked: dict[str, Asked] = {}
    only_wrap: set[str] = set()
    for uri in dict.fromkeys(uri for uris in lists.values() for uri in uris):
        try:
            kms = await stack.enter_async_context(open_kms(uri))
            keys.append(kms)
            if wraps_only(kms):
                only_wrap.add(uri)
            else:
                await kms.check()
            asked[uri] = await kms.describe()
        except KmsError as error:
            asked[uri] = error
    answering = {uri for uri, told in asked.items() if isinstance(told, Description) and uri not in only_wrap}
    for uri, told in asked.items():
        alone = [whose for whose, uris in lists.items() if uri in uris and not answering.intersection(uris)]
        for finding in _findings(uri, told, opens=uri not in only_wrap, alone=alone, where=places_of(uri, settings)):
            yield finding
    if len(lists) > 1 or len(asked) > 1:
        for whose, uris in lists.items():
            yield _serving(whose, [uri for uri in uris if uri not in only_wrap], answering)


def _lists(settings: Settings) -> Mapping[str, Sequence[str]]:
    """The KMS keys of each list that a data key or the root key depends on."""
    further = {f"keyring {name}": ring.kms_keys for name, ring in settings.keyrings.items() if ring.kms_keys}
    return {"kms.keys": settings.kms.keys, **further}


def _findings(uri: str, told: Asked, *, opens: bool, alone: Sequence[str], where: str) -> list[Finding]:
    if isinstance(told, KmsError):
        text = f"{where}: {told}. {_remedy(told)}"
        # A key that is configured wrongly keeps a broker from starting; one that is away does, if it is the only one.
        return [failed("KMS", text) if alone or isinstance(told, BadKey) else warning("KMS", text)]
    does = "wraps and unwraps" if opens else "wraps, and opens nothing here, as it should"
    found = [ok("KMS", f"{uri} {does}; {told.provider}, {told.state}{', in hardware' if told.hsm else ''}")]
    return found + [warning("KMS", f"{uri}: {text}") for text in told.warnings]


def _remedy(error: KmsError) -> str:
    match error:
        case BadKey():
            return "Mend its URI or what that names, or take it out of the configuration"
        case Disabled():
            return "Enable it, or take it out of the configuration and run tokenbroker key rewrap"
        case Denied():
            return "Mend its policy, or take it out of the configuration and run tokenbroker key rewrap"
        case _:
            return "Mend the way to it: network, name, proxy, certificate, quota"


def _serving(whose: str, uris: Sequence[str], answering: set[str]) -> Finding:
    """What the list as a whole can do."""
    serve = [uri for uri in uris if uri in answering]
    silent = [uri for uri in uris if uri not in answering]
    if not serve:
        return failed("KMS keys", f"{whose}: none of them opens ({', '.join(silent) or 'it names none that can'})")
    if silent:
        return warning("KMS keys", f"{whose}: served by {', '.join(serve)}; without {', '.join(silent)}")
    return ok("KMS keys", f"{whose}: all {len(serve)} open, asked in this order: {', '.join(serve)}")
