"""Arguments, and from a failure to an exit code. What each verb does is in its own module."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Final

from tokenbroker_client.command import enroll, exec_command, keygen, lease
from tokenbroker_client.command.output import say
from tokenbroker_client.command.spans import span_s
from tokenbroker_client.errors import BrokerError

DEFAULT_URL: Final = "http://127.0.0.1:8420"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        code: int = asyncio.run(options.run(options))
    except BrokerError as error:
        say(str(error))
        return 1
    except BrokenPipeError:
        return 1
    except OSError as error:
        say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line. What follows the first `--` is `exec`'s command, untouched by argparse."""
    parser = build_parser()
    before, dashes, after = _split(arguments)
    options, beyond = parser.parse_known_args(before)
    if beyond:
        # Not shown again: a value typed in the wrong place would be in the terminal's log, or in a CI job's.
        parser.error(
            f"arguments that are unknown or too many: {len(beyond)}; see tokenbroker-worker {options.verb} --help"
        )
    if options.verb == "exec":
        if not after:
            parser.error("exec needs a command: tokenbroker-worker exec … -- CMD")
        options.command = after
    elif dashes:
        parser.error(f"{options.verb} takes no command after --")
    return options


def _split(arguments: Sequence[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in arguments:
        return list(arguments), False, []
    at = list(arguments).index("--")
    return list(arguments[:at]), True, list(arguments[at + 1 :])


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="tokenbroker-worker",
        description="Lease tokens from a broker as a registered worker.",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_keygen(verbs)
    _add_enroll(verbs)
    _add_lease(verbs)
    _add_exec(verbs)
    return parser


_Verbs = argparse._SubParsersAction


def _verb(verbs: _Verbs[argparse.ArgumentParser], name: str, promise: str, example: str) -> argparse.ArgumentParser:
    return verbs.add_parser(
        name,
        help=promise,
        description=promise,
        epilog=f"example: tokenbroker-worker {example}",
        allow_abbrev=False,
    )


def _add_keygen(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(verbs, "keygen", "make an Ed25519 key pair and print the public key", "keygen --out ci-1.key")
    verb.add_argument("--out", required=True, metavar="FILE", help="where the private key goes, with mode 0600")
    verb.add_argument("--worker", metavar="W", help="the worker's name, to be kept in the file")
    verb.add_argument("--json", action="store_true", help="print one JSON document")
    verb.set_defaults(run=keygen.run)


def _add_enroll(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(
        verbs,
        "enroll",
        "make a key and register it with a one-time code",
        "enroll --code-file code.txt --out ci-1.key",
    )
    verb.add_argument("--code-file", required=True, metavar="F", help="holds the code; - is standard input")
    verb.add_argument("--out", required=True, metavar="FILE", help="where the private key goes, with mode 0600")
    verb.add_argument("--json", action="store_true", help="print one JSON document")
    _add_address(verb)
    verb.set_defaults(run=enroll.run)


def _add_lease(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(verbs, "lease", "lease a token and print its value", "lease github/ci --key ci-1.key")
    verb.add_argument("token", metavar="NAME")
    verb.add_argument(
        "--stage",
        choices=("current", "previous"),
        default="current",
        help="previous: the version before, where a grant allows it",
    )
    verb.add_argument("--hold", action="store_true", help="hold the lease, and print each later value, until a signal")
    verb.add_argument("--json", action="store_true", help="print one JSON document per value")
    _add_identity(verb)
    verb.set_defaults(run=lease.run)


def _add_exec(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(
        verbs,
        "exec",
        "run the command after -- with leased values in its environment",
        "exec --key ci-1.key --token github/ci=GITHUB_TOKEN -- make release",
    )
    verb.add_argument(
        "--token",
        dest="tokens",
        action="append",
        required=True,
        type=exec_command.binding,
        metavar="NAME=ENVVAR",
        help="a token, and the variable that gets its value; may be repeated",
    )
    verb.add_argument("--stop-on-revoke", action="store_true", help="send the command SIGTERM when a lease is revoked")
    _add_identity(verb)
    verb.set_defaults(run=exec_command.run)


def _add_address(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--url",
        default=os.environ.get("TOKENBROKER_URL", DEFAULT_URL),
        metavar="U",
        help=f"the broker (TOKENBROKER_URL; default {DEFAULT_URL})",
    )
    verb.add_argument("--ca-file", metavar="FILE", help="trust the certificate authorities in this PEM file only")
    verb.add_argument(
        "--insecure-plaintext", action="store_true", help="allow a URL without TLS to a host that is not loopback"
    )


def _add_identity(verb: argparse.ArgumentParser) -> None:
    key = os.environ.get("TOKENBROKER_KEY")
    verb.add_argument(
        "--key", default=key, required=key is None, metavar="FILE", help="the worker's key (TOKENBROKER_KEY)"
    )
    verb.add_argument(
        "--worker",
        default=os.environ.get("TOKENBROKER_WORKER"),
        metavar="W",
        help="the worker's name (TOKENBROKER_WORKER; default: the one in the key file)",
    )
    verb.add_argument("--ttl", type=span_s, metavar="SPAN", help="how long a value outlives a lost connection, as 5m")
    verb.add_argument(
        "--in-line",
        type=span_s,
        metavar="SPAN",
        help="how long to stand in line where every place of a token is taken, at most 5m (default: not at all)",
    )
    verb.add_argument(
        "--wait", type=span_s, default=30.0, metavar="SPAN", help="how long to wait for the broker (default 30s)"
    )
    _add_address(verb)
