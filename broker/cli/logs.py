"""Where log lines go and how they look: standard error, one line an event. What is logged is decided where it happens.

Tracebacks leave out local variables, which may hold a value. Requests that are no HTTP are left out whole: the server
would log a traceback for each, with the bytes that it could not read, and those may be a credential.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from aiohttp.http_exceptions import HttpProcessingError

Level = Literal["debug", "info", "warning", "error"]


def configure_logs(*, level: Level, style: Literal["console", "json"] = "console") -> None:
    """Set up logging for this process, the standard library's included; call it once."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor]
    if style == "json":
        plain = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        last = [structlog.processors.ExceptionRenderer(plain), structlog.processors.JSONRenderer()]
    else:
        colours = sys.stderr.isatty()
        last = [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.getLogger("aiohttp.server").addFilter(_is_ours)
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a record of the HTTP server tells of a fault of ours, and not of a peer that speaks no HTTP."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)
