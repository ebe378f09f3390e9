"""The handshake: the worker proves that it holds its key, to a broker of the right cluster.

What comes after `welcome` is in `connection`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TypeVar

from tokenbroker_client.errors import ANSWERS, ConnectionLost, SessionRefused, WrongCluster
from tokenbroker_client.frame_socket import FrameSocket
from tokenbroker_client.keys import WorkerKey
from tokenbroker_client.transcript import session_transcript
from tokenbroker_client.wire import (
    HANDSHAKE_S,
    AuthMethod,
    BadEncoding,
    Challenge,
    Error,
    Hello,
    Prove,
    Welcome,
    b64,
    unb64,
)

Frame = TypeVar("Frame", Challenge, Welcome)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who connects. `client` is a name and version for the operator's eyes."""

    worker: str
    key: WorkerKey
    client: str


async def prove_identity(socket: FrameSocket, *, identity: Identity, cluster: str | None) -> Welcome:
    """Run the handshake and return the broker's welcome.

    Signs nothing for another cluster than `cluster`, when that is given. Each of the broker's two answers may take 5 s.
    Raises WrongCluster, Unauthenticated or another SessionRefused, and ConnectionLost for all that may pass.
    """
    nonce = secrets.token_bytes(32)
    await socket.send(
        Hello(
            worker=identity.worker,
            auth=AuthMethod.ED25519,
            nonce=b64(nonce),
            public_key=identity.key.public_key_b64,
            client=identity.client,
        )
    )
    challenge = await _receive(socket, Challenge)
    if cluster is not None and challenge.cluster != cluster:
        raise WrongCluster(f"the broker belongs to cluster {challenge.cluster!r}; {cluster!r} is expected")
    transcript = session_transcript(
        cluster_id=challenge.cluster,
        worker=identity.worker,
        public_key=identity.key.public_key,
        client_nonce=nonce,
        broker_nonce=_nonce_of(challenge),
        channel_binding=socket.channel_binding(),
    )
    await socket.send(Prove(signature=b64(identity.key.sign(transcript))))
    welcome = await _receive(socket, Welcome)
    if (welcome.cluster, welcome.worker) != (challenge.cluster, identity.worker):
        raise ConnectionLost("the broker welcomed another worker, or on behalf of another cluster")
    return welcome


def _nonce_of(challenge: Challenge) -> bytes:
    try:
        return unb64(challenge.nonce, length=32)
    except BadEncoding as error:
        raise ConnectionLost(f"the broker's nonce is {error}") from error


async def _receive(socket: FrameSocket, kind: type[Frame]) -> Frame:
    while True:
        frame = await socket.receive(within_s=HANDSHAKE_S)
        if isinstance(frame, kind):
            return frame
        if isinstance(frame, Error):
            failure = ANSWERS.get(frame.code, ConnectionLost)
            if issubclass(failure, SessionRefused):
                raise failure(frame.message)
            raise ConnectionLost(f"the broker refused the connection: {frame.code}", retry_after_s=frame.retry_after_s)
        if frame is not None:
            raise ConnectionLost("the broker broke the order of the handshake")
