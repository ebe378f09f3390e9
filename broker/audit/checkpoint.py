"""What a checkpoint says: a C2SP tlog-checkpoint with one extension line that links a log to the one before it.

    <cluster>/audit/<instance>/<log>
    <size>
    <root, Base64>
    previous <origin> <size> <root, Base64>      only when the log continues another

Signing is `broker.audit.note`; when checkpoints are made is `broker.audit.checkpointer`.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from broker.audit.errors import NoteBroken
from broker.audit.note import strict_base64
from broker.errors import StartRefused

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")


def key_name(cluster_id: str) -> str:
    """The name under which a cluster's audit key signs, and the beginning of every origin of that cluster.

    StartRefused: `cluster_id` is not 1 to 128 letters, digits, dots, dashes and underscores.
    """
    if not _NAME.fullmatch(cluster_id):
        raise StartRefused(f"cluster id {cluster_id!r} must be 1 to 128 letters, digits, dots, dashes, underscores")
    return f"{cluster_id}/audit"


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Which log: the `log`-th of the cluster, written by `instance`."""

    cluster: str
    instance: str
    log: int

    def text(self) -> str:
        """The origin line. StartRefused: a name with characters that an origin cannot hold."""
        if not _NAME.fullmatch(self.instance):
            raise StartRefused(
                f"instance name {self.instance!r} must be 1 to 128 letters, digits, dots, dashes, underscores"
            )
        return f"{key_name(self.cluster)}/{self.instance}/{self.log}"

    @classmethod
    def parse(cls, text: str) -> Origin:
        """NoteBroken: not the origin of a tokenbroker audit log."""
        parts = text.split("/")
        if (
            len(parts) != 4
            or parts[1] != "audit"
            or not _NAME.fullmatch(parts[0])
            or not _NAME.fullmatch(parts[2])
            or not _NUMBER.fullmatch(parts[3])
        ):
            raise NoteBroken(f"{text!r} is not the origin of an audit log (cluster/audit/instance/number)")
        return cls(cluster=parts[0], instance=parts[2], log=int(parts[3]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """The state of a log: its origin, how many entries, and the root over them."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A tree head of one log, and the log that it continues."""

    head: Link
    previous: Link | None = None

    def text(self) -> str:
        """The note text, to be signed."""
        lines = [self.head.origin, str(self.head.size), root_text(self.head.root)]
        if self.previous is not None:
            lines.append(f"previous {self.previous.origin} {self.previous.size} {root_text(self.previous.root)}")
        return "\n".join(lines) + "\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """The checkpoint that `text` (opened from its note) says. Extension lines of other kinds are refused.

        NoteBroken: not of the form above.
        """
        lines = text.split("\n")
        if len(lines) not in {4, 5} or lines.pop() != "":
            raise NoteBroken("a checkpoint has three lines, or four when it continues another log")
        head = _link(*lines[:3])
        if len(lines) == 3:
            return cls(head=head)
        words = lines[3].split(" ")
        if len(words) != 4 or words[0] != "previous":
            raise NoteBroken("the fourth line of a checkpoint is: previous ORIGIN SIZE ROOT")
        return cls(head=head, previous=_link(*words[1:]))


def root_text(root: bytes) -> str:
    """A root as checkpoints and entries write it."""
    return base64.b64encode(root).decode()


def _link(origin: str, size: str, root: str) -> Link:
    Origin.parse(origin)
    if not _NUMBER.fullmatch(size):
        raise NoteBroken("the size of a tree is a decimal number without leading zeros")
    raw = strict_base64(root)
    if len(raw) != 32:
        raise NoteBroken("the root of a tree is 32 bytes")
    return Link(origin=origin, size=int(size), root=raw)
