"""Find the data keys that no KMS key of a configuration would open, before that configuration is used.

What is done about them is decided by whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from broker.vault.data_keys import is_committed, kms_context
from broker.vault.wrapping import Opening, openings
from kms.errors import Corrupt, Denied
from kms.port import Kms, Wrap, wraps_only
from storage.records import DataKeyRecord

_SHOWN_MAX = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Stranded:
    """The data keys of one keyring that would not open. wrapped_by: the KMS keys that would open them."""

    keyring: str
    data_keys: tuple[str, ...]
    wrapped_by: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.data_keys[:_SHOWN_MAX])
        more = len(self.data_keys) - _SHOWN_MAX
        return (
            f"no KMS key of keyring {self.keyring} opens its data keys {shown}{f' and {more} more' if more > 0 else ''}"
            f", which {', '.join(self.wrapped_by) or 'nobody'} wrapped: put that KMS key back, run `tokenbroker key "
            f"rewrap {self.keyring}`, then take it out"
        )


async def find_stranded(
    data_keys: Iterable[DataKeyRecord],
    *,
    kms_keys: Callable[[str], Sequence[str]],
    configured: Collection[str],
    kms: Mapping[str, Kms],
    cluster_id: str,
) -> tuple[Stranded, ...]:
    """Every keyring with data keys that would not open. kms_keys: those of a keyring, by its name.

    configured: the KMS keys that the configuration names. kms: those of them that are open now.
    A wrap that names a configured KMS key is believed to open. Where a key would have to open what it made under
    another name, it is asked to, once for each pair of names, and believed while it is not open. Unavailable: it did
    not answer, so nobody knows.
    """
    proved: dict[tuple[str, str], bool] = {}
    found: dict[str, list[DataKeyRecord]] = {}
    for record in data_keys:
        if record.state == "destroyed":
            continue
        uris = [uri for uri in kms_keys(record.keyring) if uri in configured and not wraps_only(kms.get(uri))]
        for each in openings(record.wraps, uris):
            if each.certain or each.kms_key not in kms:
                break
            pair = (each.wrap.kms_key, each.kms_key)
            if pair not in proved:
                proved[pair] = await _opens(kms[each.kms_key], each, record, cluster_id)
            if proved[pair]:
                break
        else:
            found.setdefault(record.keyring, []).append(record)
    return tuple(
        Stranded(
            keyring=keyring,
            data_keys=tuple(record.id for record in records),
            wrapped_by=tuple(dict.fromkeys(wrap.kms_key for record in records for wrap in record.wraps)),
        )
        for keyring, records in sorted(found.items())
    )


async def _opens(kms: Kms, opening: Opening, record: DataKeyRecord, cluster_id: str) -> bool:
    context = kms_context(cluster_id=cluster_id, keyring=record.keyring, data_key=record.id, purpose="value")
    wrap = Wrap(key_version=opening.wrap.key_version, blob=opening.wrap.blob)
    try:
        key = await kms.unwrap(wrap, context)
    except (Corrupt, Denied):
        return False
    return is_committed(key, record.commitment, cluster_id=cluster_id, keyring=record.keyring, data_key=record.id)
