"""array, table → rows     .npy arrays and Parquet tables as rows; an array stays on disk, and nothing in it is run.

Derived in chapter 02.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from s4d_lib.datasets.lists import Bad, Row, RowError, csv_dicts, refuse, short
from s4d_lib.errors import Refused


def npy_rows(path: Path, labels: Path | None) -> Iterator[Row]:
    """Rows of a .npy array of names and, unless unlabelled, one of whole numbers; both stay on disk.

    An array of Python objects can only be read by running what the file says, and is refused.
    """
    names = _array(path, "U")
    numbers = _array(labels, "iu") if labels else None
    if numbers is not None and len(names) != len(numbers):
        raise Refused(f"{path}: {len(names)} names, but {labels} holds {len(numbers)} labels")
    for index, name in enumerate(names):
        yield Row(index + 1, str(name), None if numbers is None else str(numbers[index]))


def _array(path: Path, kinds: str):
    from tokenize import TokenError

    import numpy as np

    try:
        with open(path, "rb") as file:
            pickled = file.read(1) == b"\x80"
        array = np.lib.format.open_memmap(path, mode="r")  # unlike np.load it looks for nothing but an array
    except (ValueError, EOFError, OSError, TokenError, SyntaxError, TypeError, OverflowError, KeyError, RecursionError,
            MemoryError, AttributeError) as error:
        if "Python objects" in str(error) or pickled:
            raise Refused(
                f"{path}: the array holds Python objects; reading them would run what the file says. Where you trust "
                "it, save it anew with np.save(path, np.array(names, dtype=str)), labels with dtype=int"
            ) from None
        raise Refused(f"{path}: not a readable .npy array ({short(str(error))[1:-1]})") from error
    if array.ndim != 1 or array.dtype.kind not in kinds:
        wanted = "text" if kinds == "U" else "whole numbers"
        raise Refused(f"{path}: expected a list of {wanted}, got {array.dtype} {list(array.shape)}")
    return array


def one_value(path: Path) -> str:
    """The text or whole number that a .npy file of a single value holds, as text. ValueError for any other file."""
    import numpy as np

    try:
        with open(path, "rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # numpy's own reader of headers ends in many ways; none runs anything
        raise RowError(f"{path}: not a .npy file of one value ({short(str(error))[1:-1]})", "row") from None
    if array.size != 1 or array.dtype.kind not in "USiuf":
        raise RowError(f"{path}: expected one value, got {array.dtype} {list(array.shape)}", "row")
    value = array.reshape(-1)[0]
    if array.dtype.kind == "f":
        return str(int(value)) if np.isfinite(value) and value == int(value) else str(value)
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def table_dicts(path: Path, bad: Bad = refuse) -> Iterator[tuple[int, dict[str, str]]]:
    """As `csv_dicts`, of a .csv, .tsv or .parquet file; a row of a Parquet file counts from 1."""
    if path.suffix.lower() == ".parquet":
        return _parquet_dicts(path)
    return csv_dicts(path, "\t" if path.suffix.lower() == ".tsv" else None, bad)


def _parquet_dicts(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise Refused(
            f"{path}: reading Parquet needs pyarrow; pip install 's4d-book[parquet]', or save the table as CSV"
        ) from None
    try:
        with ParquetFile(path) as file:
            yield 1, dict.fromkeys(file.schema_arrow.names, "")
            batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=4096))
            for number, row in enumerate(chain.from_iterable(batches), 1):
                yield number, {name: _written(value) for name, value in row.items()}
    except ArrowException as error:
        raise Refused(f"{path}: not a readable Parquet file ({error})") from error


def _written(value: object) -> str:
    """A value as a CSV would hold it; whole numbers that a missing value turned into 3.0 lose the point."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
