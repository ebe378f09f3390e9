"""Finding and opening the adapter of a key URI."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker.kms_keys import owning_kms_keys
from kms.catalog import open_kms, schemes
from kms.conformance import CONTEXT, KEY
from kms.errors import BadKey, Denied, Unavailable

ADAPTERS = """\
import asyncio
from contextlib import asynccontextmanager

from kms.errors import Unavailable

@asynccontextmanager
async def opens(uri):
    yield None
    closed.append(uri)

closed = []

@asynccontextmanager
async def breaks(uri):
    raise RuntimeError("canary-of-an-adapter")
    yield

@asynccontextmanager
async def is_away(uri):
    raise Unavailable("the network is down")
    yield

@asynccontextmanager
async def fails_to_close(uri):
    yield None
    raise RuntimeError("cannot close")

def is_no_context(uri):
    return 7

async def fail():
    raise LookupError

@asynccontextmanager
async def loses_a_task(uri):
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())
        yield None
"""

ENTRY_POINTS = """\
[tokenbroker.kms]
opens = elsewhere_adapters:opens
breaks = elsewhere_adapters:breaks
is-away = elsewhere_adapters:is_away
fails-to-close = elsewhere_adapters:fails_to_close
is-no-context = elsewhere_adapters:is_no_context
loses-a-task = elsewhere_adapters:loses_a_task
missing = elsewhere_missing:opens
hungry = elsewhere_hungry:opens [cloud]
local = elsewhere_adapters:opens
"""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution of somebody else, with adapters good and bad; one claims the scheme local."""
    site = tmp_path / "site"
    metadata = site / "elsewhere-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    (site / "elsewhere_adapters.py").write_text(ADAPTERS)
    (site / "elsewhere_hungry.py").write_text("import an_sdk_that_nobody_installed\n")
    monkeypatch.syspath_prepend(str(site))


async def test_a_local_uri_opens_a_usable_key(key_file: Path) -> None:
    """The catalog opens a local key by its URI, and the key keeps that URI."""
    uri = f"local:{key_file}"
    async with open_kms(uri) as kms:
        assert kms.uri == uri
        assert await kms.unwrap(await kms.wrap(KEY, CONTEXT), CONTEXT) == KEY


async def test_a_closed_key_no_longer_answers(key_file: Path) -> None:
    """After its context, a local key holds nothing to answer with."""
    async with open_kms(f"local:{key_file}") as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
    with pytest.raises(Unavailable, match="closed"):
        await kms.unwrap(wrap, CONTEXT)


async def test_an_unknown_scheme_lists_the_known_ones_and_the_way_to_others() -> None:
    """The error says what is installed, and how to install another."""
    with pytest.raises(BadKey, match=r"installed: .*local.*tokenbroker\.kms") as caught:
        async with open_kms("elsewhere-kms:region-1:1:key/x"):
            pass
    assert caught.value.kms_key == "elsewhere-kms:…"


@pytest.mark.parametrize(
    "uri", ["", "local", "local:", ":x", "LOCAL:x", "lo cal:x", "1:x", "a" * 40 + ":x", "x" * 3000]
)
async def test_what_is_no_uri_is_a_bad_key(uri: str) -> None:
    """Text that names no scheme and key is refused before anything is looked up."""
    with pytest.raises(BadKey):
        async with open_kms(uri):
            pass


async def test_an_error_of_opening_does_not_show_options() -> None:
    """A secret misplaced in the query of a URI does not get into the error."""
    with pytest.raises(BadKey) as caught:
        async with open_kms("nowhere:key?password=canary"):
            pass
    assert "canary" not in str(caught.value)


@pytest.mark.usefixtures("elsewhere")
async def test_adapters_of_other_distributions_are_found() -> None:
    """A third party's entry point is enough to be opened by its scheme."""
    assert {"opens", "local"} <= set(schemes())
    async with open_kms("opens:it") as kms:
        assert kms.uri == "opens:it"


@pytest.mark.usefixtures("elsewhere")
async def test_a_scheme_claimed_twice_is_refused(key_file: Path) -> None:
    """No package can put itself in the place of another one's adapter."""
    with pytest.raises(BadKey, match="several adapters"):
        async with open_kms(f"local:{key_file}"):
            pass


@pytest.mark.usefixtures("elsewhere")
async def test_an_adapter_that_cannot_be_loaded_is_a_bad_key() -> None:
    """A missing dependency of an adapter is said, with what to do."""
    with pytest.raises(BadKey, match=r"cannot be loaded.*install"):
        async with open_kms("missing:it"):
            pass


@pytest.mark.usefixtures("elsewhere")
async def test_a_missing_extra_is_named_as_it_is_installed() -> None:
    """An adapter whose SDK is missing says which module that is, and the command that installs it."""
    with pytest.raises(BadKey) as caught:
        async with open_kms("hungry:it"):
            pass
    assert "ModuleNotFoundError an_sdk_that_nobody_installed" in str(caught.value)
    assert str(caught.value).endswith("pip install 'elsewhere[cloud]'")


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("scheme", ["breaks", "is-no-context"])
async def test_an_adapter_that_breaks_while_opening_is_denied(scheme: str) -> None:
    """Anything unknown fails closed, and the message leaves out what the adapter said."""
    with pytest.raises(Denied) as caught:
        async with open_kms(f"{scheme}:it"):
            pass
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.usefixtures("elsewhere")
async def test_an_adapter_that_is_away_is_unavailable_and_named() -> None:
    """An adapter's own typed error of opening passes, with the key's name."""
    with pytest.raises(Unavailable, match="network is down") as caught:
        async with open_kms("is-away:it"):
            pass
    assert caught.value.kms_key == "is-away:it"


@pytest.mark.usefixtures("elsewhere")
async def test_failing_to_close_does_not_hide_what_ended_the_body() -> None:
    """The body's exception passes; that closing failed as well is a note on it."""
    with pytest.raises(KeyError) as caught:
        async with open_kms("fails-to-close:it"):
            raise KeyError("body")
    assert any("closing a KMS key failed" in note for note in caught.value.__notes__)


@pytest.mark.usefixtures("elsewhere")
async def test_failing_to_close_is_said_when_the_body_went_well() -> None:
    """Without another error, the failure to close is the error."""
    with pytest.raises(Denied):
        async with open_kms("fails-to-close:it"):
            pass


@pytest.mark.usefixtures("elsewhere")
async def test_a_task_of_an_adapter_that_fails_ends_whoever_holds_the_key_loudly() -> None:
    """A key whose adapter has lost a task is not held on to in silence, as if somebody had stopped its holder."""
    with pytest.raises(RuntimeError, match=r"loses-a-task:it.*a task of its adapter has failed"):
        async with open_kms("loses-a-task:it"):
            await asyncio.Event().wait()


@pytest.mark.usefixtures("elsewhere")
async def test_who_is_cancelled_is_cancelled_even_if_closing_fails() -> None:
    """Being stopped is not mistaken for a failure of the adapter."""
    entered = asyncio.Event()

    async def hold() -> None:
        async with open_kms("fails-to-close:it"):
            entered.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        holder = group.create_task(hold())
        await entered.wait()
        holder.cancel()
    assert holder.cancelled()


@pytest.mark.usefixtures("elsewhere")
async def test_a_broker_does_not_go_on_with_a_key_that_has_lost_its_task() -> None:
    """The context of the open keys ends, so that the process is restarted: nothing else would open the key again."""

    async def hold() -> None:
        async with owning_kms_keys(open_kms) as keys:
            await keys.open_or_keep_place(["loses-a-task:it"])
            await asyncio.Event().wait()

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a task of its adapter has failed")):
        await hold()
