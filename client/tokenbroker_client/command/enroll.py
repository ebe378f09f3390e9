"""`tokenbroker-worker enroll`: make a key, and have a one-time code register it."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from pathlib import Path
from typing import Annotated, Final

import aiohttp
import msgspec

from tokenbroker_client.command.output import say, tell, tell_json
from tokenbroker_client.command.reach import tls_of
from tokenbroker_client.endpoint import Endpoint, parse_endpoint
from tokenbroker_client.errors import BadRequest, ConnectionLost, Denied
from tokenbroker_client.keys import WorkerKey
from tokenbroker_client.transcript import enrolment_transcript
from tokenbroker_client.wire import WorkerName, b64

_ENROLL_S: Final = 15.0
_BODY_BYTES_MAX: Final = 64 * 1024
_CODE: Final = re.compile(r"tbe_[A-Za-z0-9_-]{1,128}\.[A-Za-z0-9_-]{1,256}")


class Enrolled(msgspec.Struct, frozen=True):
    """What a broker answers to a good code."""

    worker: WorkerName
    cluster: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class Problem(msgspec.Struct, frozen=True):
    """The parts of a problem document (RFC 9457) that a person can use."""

    title: str = ""
    detail: str = ""


async def run(options: argparse.Namespace) -> int:
    """Write a key file, redeem the code, then enter worker and cluster into the file.

    The key is on disk before the code is spent: a crash in between leaves a key that is registered and kept. Raises
    Denied when the broker refuses (the file is removed), and ConnectionLost when it cannot be told whether the code
    was redeemed (the file stays).
    """
    endpoint = parse_endpoint(options.url, insecure_plaintext=options.insecure_plaintext)
    code = await asyncio.to_thread(_read_code, options.code_file)
    key = WorkerKey.generate()
    key.save(options.out)
    try:
        enrolled = await _redeem(endpoint, code, key, options)
    except Denied:
        _discard(options.out)
        raise
    key.worker, key.cluster = enrolled.worker, enrolled.cluster
    key.save(options.out, replace=True)
    if options.json:
        tell_json(
            {
                "worker": key.worker,
                "cluster": key.cluster,
                "public_key": key.public_key_b64,
                "key_file": options.out,
            }
        )
    else:
        tell(enrolled.worker)
        say(f"enrolled {enrolled.worker} in cluster {enrolled.cluster}; its key is in {options.out}")
    return 0


def _read_code(source: str) -> str:
    text = sys.stdin.read(1024) if source == "-" else Path(source).read_text("utf-8", "replace")[:1024]
    code = text.strip()
    if not _CODE.fullmatch(code):
        raise BadRequest("that is no enrolment code; one looks like tbe_….… and stands alone in its file")
    return code


def _discard(path: str) -> None:
    """Remove the file of a key that is surely not registered."""
    Path(path).unlink(missing_ok=True)


async def _redeem(endpoint: Endpoint, code: str, key: WorkerKey, options: argparse.Namespace) -> Enrolled:
    transcript = enrolment_transcript(code_id=code.rpartition(".")[0], public_key=key.public_key)
    body = {"code": code, "public_key": key.public_key_b64, "signature": b64(key.sign(transcript))}
    try:
        async with (
            asyncio.timeout(_ENROLL_S),
            aiohttp.ClientSession() as http,
            http.post(
                endpoint.enroll_url,
                data=msgspec.json.encode(body),
                headers={"Content-Type": "application/json"},
                allow_redirects=False,  # a redirect would take the code elsewhere
                ssl=tls_of(options) or True,
            ) as response,
        ):
            answer = await response.content.read(_BODY_BYTES_MAX)
            status = response.status
    except aiohttp.ClientConnectorError as error:
        _discard(options.out)
        raise ConnectionLost(f"the broker cannot be reached: {error}; the code is not spent") from error
    except (TimeoutError, aiohttp.ClientError) as error:
        raise ConnectionLost(
            f"the broker did not answer ({type(error).__name__}), so the code may be spent; "
            f"if `worker show` lists this key, {options.out} is good: {key.public_key_b64}"
        ) from error
    return _read_answer(status, answer, options)


def _read_answer(status: int, answer: bytes, options: argparse.Namespace) -> Enrolled:
    if status != 200:
        try:
            problem = msgspec.json.decode(answer, type=Problem)
        except msgspec.MsgspecError:
            problem = Problem()
        reason = problem.detail or problem.title or "no reason given"
        if status >= 500:
            raise ConnectionLost(
                f"the broker failed with {status}: {reason}; the code may be spent, the key stays in {options.out}"
            )
        raise Denied(f"the broker refused with {status}: {reason}")
    try:
        return msgspec.json.decode(answer, type=Enrolled)
    except msgspec.MsgspecError as error:
        raise ConnectionLost(f"the broker's answer cannot be read ({error}); the key stays in {options.out}") from error
