"""What administration refuses beyond the broker's own tree (`broker.errors`), each under the branch it belongs to.

Conflict
├── Exists              a thing of that name is there already
├── PreconditionFailed  it is not at the revision the caller named
├── LastAdmin           nobody would be left who can administer
├── InUse               something else still needs it
├── NoFormer            there is no earlier version to go back to
├── RolloutRunning      a version of the token is being rolled out
├── WrongKind           a token of this kind has no such thing
└── TooMany             a bound on how many there may be
Denied
├── RevealByKms         the keyring's KMS decides for each worker, and an operator is none
└── RevealOff           revealing is switched off
Unauthenticated
└── EnrolmentRefused    the code or its proof was not accepted, for whatever reason
BadRequest
├── CredentialRefused   a token that cannot hold what the broker signs in with
├── KeyRefused          a public key that must not identify anybody
├── PoolRefused         a pool that must not be so
├── RolloutRefused      the steps or times of a rollout are out of bounds
└── ValueRefused        a token's value, content type or stage is out of its bound
"""

from __future__ import annotations

from broker.errors import BadRequest, Conflict, Denied, Unauthenticated


class Exists(Conflict):
    """A thing of that name exists already; choose another name or change the one that exists."""

    code = "exists"


class PreconditionFailed(Conflict):
    """It is not at the revision you named; read it again and repeat the change if it still makes sense."""

    code = "precondition_failed"

    def __init__(self, message: str | None = None, *, current: int = 0) -> None:
        super().__init__(message)
        self.current = current


class LastAdmin(Conflict):
    """This is the last enabled admin with the role admin; make another one first."""

    code = "last_admin"


class InUse(Conflict):
    """Something else still needs it; end that first."""

    code = "in_use"


class NoFormer(Conflict):
    """The token has no earlier version to go back to; promote one by its number, or put the value again."""

    code = "no_former_version"


class WrongKind(Conflict):
    """The token's values are stored, made for each lease, or those of a pool: it has no such thing as you ask for."""

    code = "wrong_kind"


class RolloutRunning(Conflict):
    """A version of the token is being rolled out; wait for its end, or take it back with `token rollout abort`."""

    code = "rollout_running"


class TooMany(Conflict):
    """There are as many as this broker keeps; remove some first."""

    code = "too_many"


class RevealByKms(Denied):
    """The keyring's KMS decides for each worker, and an operator is none; lease it as a worker that the KMS allows."""

    code = "reveal_by_kms"


class RevealOff(Denied):
    """Revealing values is switched off on this broker; lease the token as a worker instead."""

    code = "reveal_off"


class EnrolmentRefused(Unauthenticated):
    """The code was not accepted; ask an operator for a fresh one."""

    code = "enrolment_refused"


class CredentialRefused(BadRequest):
    """The token cannot hold what the broker signs in with upstream; name another one."""

    code = "credential_refused"


class KeyRefused(BadRequest):
    """The public key cannot identify anybody; make another key pair."""

    code = "key_refused"


class RolloutRefused(BadRequest):
    """The steps or times of the rollout are out of bounds."""

    code = "rollout_refused"


class PoolRefused(BadRequest):
    """A pool cannot be so: its members, places or pauses are out of bounds, or a member cannot be one."""

    code = "pool_refused"


class ValueRefused(BadRequest):
    """The value, its content type or its stage is out of bounds."""

    code = "value_refused"
