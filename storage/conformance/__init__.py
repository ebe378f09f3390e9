"""The laws of the storage port, as tests that any adapter can run. Not imported by anything that serves.

To enrol an adapter, subclass in a test module and say how to open it; needs pytest and pytest-asyncio (auto mode):

    class TestMyStorage(StorageLaws):
        @pytest.fixture
        def opener(self, tmp_path):
            url = f"mine://{tmp_path}"
            return lambda: open_mine(url)      # each call: another handle on the same, at first empty, database

Adapters that serve several processes have more laws in `storage.conformance.processes`.
`pytest.register_assert_rewrite("storage.conformance")` in conftest.py makes failures say more. Bounds that the port
leaves to the adapter (how many calls may wait, how long a lock is waited for) are the adapter's own tests.
"""

from __future__ import annotations

from storage.conformance.auditing import AuditLaws
from storage.conformance.committing import CommitLaws
from storage.conformance.contending import ContentionLaws
from storage.conformance.feeding import FeedLaws
from storage.conformance.keeping import KeepingLaws
from storage.conformance.lasting import LastingLaws
from storage.conformance.opener import Opener
from storage.conformance.selecting import SelectLaws
from storage.conformance.timing import TimingLaws

__all__ = ["Opener", "StorageLaws"]


class StorageLaws(KeepingLaws, SelectLaws, TimingLaws, CommitLaws, ContentionLaws, AuditLaws, FeedLaws, LastingLaws):
    """Every law; a subclass provides the fixture `opener`."""
