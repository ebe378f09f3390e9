"""A real moto server as a process of its own: KMS, STS and IAM over HTTP. What it does not enforce is in `aws_standin`.

Two of its answers are corrected at its start to what AWS documents, as laws depend on them: a Decrypt of a blob that
belongs to another key is IncorrectKeyException, and an encryption context is framed before it is authenticated.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REGION = "eu-west-1"
PATIENCE_S = 60.0

_AS_AWS = """
import json, sys
import moto.kms.models, moto.kms.utils
from moto.core.exceptions import JsonRESTError
from moto.server import main

class IncorrectKey(JsonRESTError):
    code = 400
    def __init__(self, message):
        super().__init__("IncorrectKeyException", message)

moto.kms.models.AccessDeniedException = moto.kms.utils.AccessDeniedException = IncorrectKey
moto.kms.utils._serialize_encryption_context = lambda encryption_context: json.dumps(
    sorted(encryption_context.items())
).encode()
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""


@dataclass(frozen=True, kw_only=True)
class Moto:
    """The running server. url: `http://127.0.0.1:PORT`, for every service and region."""

    url: str

    def create_key(self, alias: str | None = None, *, region: str = REGION, **asked: Any) -> str:
        """The ARN of a new symmetric key. alias: a name for it, without `alias/`. asked: more of CreateKey's."""
        # AWS takes this usage when none is named; moto then knows none.
        made = self.ask("CreateKey", {"KeyUsage": "ENCRYPT_DECRYPT", **asked}, region=region)
        arn: str = made["KeyMetadata"]["Arn"]
        if alias is not None:
            self.ask("CreateAlias", {"AliasName": f"alias/{alias}", "TargetKeyId": arn}, region=region)
        return arn

    def uri(self, arn: str) -> str:
        """The key URI of `arn` at this server."""
        return f"aws-kms:{arn}?endpoint={self.url}"

    def enforce(self) -> None:
        """From now on check signatures, and what IAM policies allow, as AWS does."""
        request = urllib.request.Request(
            f"{self.url}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S):
            pass

    def ask(self, operation: str, body: dict[str, Any], *, region: str = REGION) -> dict[str, Any]:
        """One call of the KMS API. moto checks no signature, and finds the region in it."""
        request = urllib.request.Request(
            self.url,
            data=json.dumps(body).encode(),
            headers={
                "X-Amz-Target": f"TrentService.{operation}",
                "Content-Type": "application/x-amz-json-1.1",
                "Authorization": f"AWS4-HMAC-SHA256 Credential=x/20260101/{region}/kms/aws4_request, Signature=x",
            },
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            told: dict[str, Any] = json.loads(answer.read() or b"{}")
            return told


@contextmanager
def serving() -> Iterator[Moto]:
    """A moto server on a free port of 127.0.0.1, killed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "moto.log"
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            with output.open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-c", _AS_AWS, str(port)],
                    cwd=folder,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            try:
                moto = Moto(url=f"http://127.0.0.1:{port}")
                if _answers(moto, process):
                    yield moto
                    return
                # Whoever took the port between our look and its start made it end.
                assert b"in use" in output.read_bytes(), output.read_text(errors="replace")
            finally:
                process.kill()
                process.wait()


def _answers(moto: Moto, process: subprocess.Popen[bytes]) -> bool:
    """Whether it answers; False once it has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None:
        try:
            moto.ask("GenerateRandom", {"NumberOfBytes": 8})
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline, "moto does not answer"
            time.sleep(0.05)
        else:
            return True
    return False
