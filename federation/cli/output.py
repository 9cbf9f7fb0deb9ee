"""What a command prints: rows as a table, JSON, YAML or CSV; findings as one line each."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import typer

Row = Mapping[str, object]
Cells = Sequence[object]

# A terminal obeys these, and values are written by anybody; lines and tabs are laid out.
CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"


class Finding(Exception):
    """What the user should know instead of a result: one line each, and exit code 1."""

    def __init__(self, *lines: object) -> None:
        super().__init__("\n".join(_one_line(str(line)) for line in lines))


def rendered(
    columns: Sequence[str], rows: Iterable[Cells], shape: Format, width: int | None = None
) -> str:
    """The rows as text; a table is as wide as it needs to be, or folded to `width`."""
    match shape:
        case Format.JSON:
            return _json([dict(zip(columns, row, strict=True)) for row in rows])
        case Format.YAML:
            return _yaml([dict(zip(columns, row, strict=True)) for row in rows])
        case Format.CSV:
            return _csv(columns, rows)
        case Format.TABLE:
            return _table(columns, rows, width)


def picked(columns: Sequence[str], rows: Iterable[Row]) -> list[Cells]:
    """Some columns of each row, in this order."""
    return [tuple(row[column] for column in columns) for row in rows]


def nearest(name: str, known: Iterable[str]) -> str:
    """What was probably meant, as the end of a sentence."""
    from difflib import get_close_matches

    names = sorted(set(known))
    close = get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    some = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return f"known: {some}" if names else "none is known yet"


def _json(data: object) -> str:
    import json

    return json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n"


def _yaml(data: object) -> str:
    import json

    import yaml

    # Through JSON: YAML has no tag for what a database driver may return (Decimal, datetime).
    plain = json.loads(json.dumps(data, default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def _csv(columns: Sequence[str], rows: Iterable[Cells]) -> str:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(_cell, row) for row in rows)
    return text.getvalue()


def _table(columns: Sequence[str], rows: Iterable[Cells], width: int | None) -> str:
    import io

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for column in columns:
        table.add_column(Text(column.upper().translate(CONTROL)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(cell).translate(CONTROL)) for cell in row))
    console = Console(file=io.StringIO(), width=width or 100_000, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple, dict)):
        import json

        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def say(line: str) -> None:
    """A remark that is no data."""
    print(line, file=sys.stderr)


def write(text: str) -> None:
    """Data on stdout; a reader that has seen enough (`| head`) ends the command quietly."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would fail again, loudly, when the interpreter flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(0) from None
        raise Finding(f"stdout: {error.strerror}") from error


def terminal_width() -> int | None:
    """How wide a table may be; None when nobody looks at it."""
    if not sys.stdout.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns
