"""Write the configuration of a fresh installation, and add `cluster.id` to a configuration that somebody else wrote.

The operator's lines and comments stay as they are. What the keys mean is in `broker.settings`.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from urllib.parse import quote

from broker.errors import StartRefused
from broker.private_files import sync_folder
from broker.setup.layout import Layout

_CLUSTER = re.compile(r"^[ \t]*\[[ \t]*cluster[ \t]*\][ \t]*(#.*)?$", re.MULTILINE)
_EMPTY_ID = re.compile(r"^([ \t]*id[ \t]*=[ \t]*)(\"\"|'')", re.MULTILINE)


def render_config(layout: Layout, *, passphrase_file: Path | None = None) -> bytes:
    """A configuration for one machine: an SQLite file and a local KMS key in the data directory."""
    key = f"local:{quote(str(layout.key_file))}"
    if passphrase_file is not None:
        key += f"?passphrase-file={quote(str(passphrase_file.absolute()))}"
    return f"""\
# This broker's configuration. Every key is explained in docs/reference/settings.md, and may also be given in the
# environment: TOKENBROKER_SECTION__KEY, such as TOKENBROKER_SERVER__LISTEN.

[server]
listen = "127.0.0.1:8420"

[storage]
url = {_text(f"sqlite:///{quote(str(layout.database))}")}

[kms]
# A key in a file is no HSM: whoever copies both this file and the database can read every token.
keys = [{_text(key)}]
""".encode()


def pin_cluster(path: Path, cluster_id: str) -> None:
    """Write `cluster.id` into the configuration at `path`, durable when this returns; nothing else changes.

    StartRefused: the file cannot be written, pins another cluster, or is written in a way that leaves no sure place
    for the line; the message has the line to add by hand.
    """
    # A rename onto a symbolic link would replace the link, not the file.
    path = path.resolve()
    try:
        text = path.read_bytes().decode()
        before = tomllib.loads(text)
        cluster = before.get("cluster", {})
        if not isinstance(cluster, dict):
            raise _by_hand(path, cluster_id, "there, cluster is no table")
        pinned = cluster.get("id", "")
        if pinned == cluster_id:
            return
        if pinned:
            raise StartRefused(f"{path} pins cluster.id {pinned}, but the database is of cluster {cluster_id}")
        after = _with_line(text, cluster_id)
        if tomllib.loads(after) != {**before, "cluster": {**cluster, "id": cluster_id}}:
            raise _by_hand(path, cluster_id, "there is no sure place for it")
        _replace_keeping_owner(path, after.encode())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise _by_hand(path, cluster_id, reason) from None


def _with_line(text: str, cluster_id: str) -> str:
    line = f"id = {_text(cluster_id)}  # pins the root of integrity; written by init"
    header = _CLUSTER.search(text)
    if header is None:
        return f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}\n[cluster]\n{line}\n"
    table = text[header.end() :]
    emptied = _EMPTY_ID.sub(lambda match: f"{match[1]}{_text(cluster_id)}", table, count=1)
    if emptied != table:
        return f"{text[: header.end()]}{emptied}"
    return f"{text[: header.end()]}\n{line}{table or chr(10)}"


def _by_hand(path: Path, cluster_id: str, reason: str) -> StartRefused:
    return StartRefused(
        f"cluster.id cannot be written into {path} ({reason}); in its [cluster] table, add the line "
        f"id = {_text(cluster_id)} and run init again"
    )


def _replace_keeping_owner(path: Path, content: bytes) -> None:
    status = path.stat()
    temporary = path.with_name(f".{path.name}.init")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if os.geteuid() == 0:
                os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, status.st_mode & 0o777)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _text(value: str) -> str:
    """A TOML basic string; JSON's escapes are a part of TOML's."""
    return json.dumps(value, ensure_ascii=False)
