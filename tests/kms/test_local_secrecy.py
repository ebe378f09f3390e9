"""Key material of a local KMS stays out of every text that a log or a traceback could carry."""

from __future__ import annotations

import contextlib
import json
import pickle
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.pretty import pretty_repr

from kms.conformance import CONTEXT, KEY, STRANGER
from kms.errors import KmsError
from kms.local import State, open_local, set_state
from kms.local.document import parse
from kms.local.opened import open_document
from kms.local.uri import parse_uri
from kms.local.watched import Watched
from kms.port import Kms, Wrap


@pytest.fixture
def canaries(key_file: Path) -> list[bytes]:
    """What must not be seen: the private key of the file, and the key that is wrapped."""
    (entry,) = json.loads(key_file.read_text())["versions"]
    return [b64decode(entry["private_key"]), KEY]


def _sees(text: str, canary: bytes) -> bool:
    spellings = (canary.hex(), repr(canary)[2:-1], b64encode(canary).decode().rstrip("="), str(list(canary)))
    return any(spelling in text for spelling in spellings)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and everything that is chained to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


async def test_nothing_that_holds_a_key_shows_it(key_file: Path, canaries: list[bytes]) -> None:
    """str, repr and pretty-printing of every object on the way leave the key out."""
    document = parse(key_file.read_bytes())
    opened = open_document(document, passphrase=bytes)
    watched = Watched(uri=parse_uri(f"local:{key_file}"))
    loaded = await watched.first()
    async with open_local(f"local:{key_file}") as kms:
        for thing in (document, *document.versions, opened, *opened.versions.values(), watched, loaded, kms):
            for text in (str(thing), repr(thing), pretty_repr(thing), pretty_repr(vars(kms))):
                assert not any(_sees(text, canary) for canary in canaries), type(thing)


async def test_an_open_key_cannot_be_pickled(kms: Kms) -> None:
    """A key does not leave the process by way of a pickle."""
    await kms.check()
    with pytest.raises(TypeError):
        pickle.dumps(kms)


async def test_no_error_shows_a_key(kms: Kms, key_file: Path, canaries: list[bytes]) -> None:
    """Every refusal, with everything chained to it, leaves the keys out."""
    wrap = await kms.wrap(KEY, CONTEXT)
    content = key_file.read_text()
    errors: list[KmsError] = []

    @contextlib.contextmanager
    def collected() -> Iterator[None]:
        with pytest.raises(KmsError) as caught:
            yield
        errors.append(caught.value)

    with collected():
        await kms.wrap(KEY + KEY, CONTEXT)
    with collected():
        await kms.unwrap(wrap, {})
    with collected():
        await kms.unwrap(wrap, CONTEXT, STRANGER)
    with collected():
        await kms.unwrap(Wrap(key_version="1", blob=wrap.blob[:5] + KEY + wrap.blob[37:]), CONTEXT)
    set_state(key_file, 1, State.DISABLED)
    with collected():
        await kms.wrap(KEY, CONTEXT)
    for damaged in (
        content.replace('"active": 1', '"active": 2'),
        content.replace('"enabled"', f'"{b64encode(canaries[0]).decode()}"'),
        content.replace('"private_key": "', '"private_key": "A'),
        content.replace('"state"', f'"{b64encode(canaries[0]).decode()}"'),
        content[:-5],
        content.replace('"public_key": "', '"public_key": "\udcff'),
    ):
        key_file.write_bytes(damaged.encode(errors="surrogateescape"))
        with collected():
            await kms.wrap(KEY, CONTEXT)
    assert len(errors) == 11
    for error in errors:
        for link in _chain(error):
            text = f"{link!s} {link!r} {vars(link)} {getattr(link, 'object', '')!r}"
            assert not any(_sees(text, canary) for canary in canaries), text
