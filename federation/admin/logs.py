"""Logs: one event a line on stderr, for eyes on a terminal and as JSON everywhere else."""

import logging
import os
import sys
from contextlib import suppress
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor


class Printed(structlog.PrintLogger):
    """Lines that are lost when nobody takes them: a full disk must not end the mesh as well."""

    def msg(self, message: str) -> None:
        with suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def configure(stream: TextIO | None = None) -> None:
    """Once, before anything is logged and before grpc is imported, which logs on its own."""
    out = stream or sys.stderr
    # grpc's C core writes to stderr in its own format; what matters in it reaches us as errors.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    rendering = _rendering(on_terminal=out.isatty())
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *_stamped(), *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: Printed(out),
    )
    _route_libraries(out, rendering)


def _stamped() -> list[Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]


def _rendering(*, on_terminal: bool) -> list[Processor]:
    if on_terminal:
        return [structlog.dev.ConsoleRenderer(timestamp_key="at")]
    return [
        structlog.processors.format_exc_info,
        _event_first,
        structlog.processors.JSONRenderer(default=str),
    ]


def _event_first(_: object, __: str, event: EventDict) -> EventDict:
    """When, how grave and what, then its fields: JSON that people read too."""
    first = {key: event[key] for key in ("at", "level", "event") if key in event}
    return {**first, **event}


def _route_libraries(out: TextIO, rendering: list[Processor]) -> None:
    """uvicorn, asyncio, alembic and the rest: their warnings, in our shape."""
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_stamped(), structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
