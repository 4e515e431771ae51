"""Files as bytes and lines, whatever they are compressed with; what is damaged is said with the file."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def format_suffix(path: str | Path) -> str:
    """Return the suffix that names a file's format, in lower case and without that of a compression."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    while suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Open a file to read its bytes, decompressed. Raises ValueError, with the file, for one that is damaged."""
    try:
        with _open(file) as stream:
            yield stream
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise _damaged(file, error) from error
    except OSError as error:
        if (
            error.errno is None or file.suffix.lower() == ".zst"
        ):  # bz2 and zstandard say so of bytes that are not theirs
            raise _damaged(file, error) from error
        raise


def _damaged(file: Path, error: Exception) -> ValueError:
    kind = file.suffix.lower().removeprefix(".")
    return ValueError(f"{file} is no whole {kind} file: {error}. Copy or download it again, or unpack it yourself.")


def _open(file: Path) -> Any:
    match file.suffix.lower():
        case ".gz":
            return gzip.open(file)
        case ".bz2":
            return bz2.open(file)
        case ".xz":
            return lzma.open(file)
        case ".zst":
            return _open_zstandard(file)
    return file.open("rb")


def _open_zstandard(file: Path) -> Any:
    import pyarrow  # half a second of import that other files need not pay

    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(file)), "zstd"))


def read_text(file: Path) -> str:
    """Return a whole file as text. Raises ValueError, with the file and the line, for one that is not UTF-8."""
    with opened(file) as stream:
        raw = stream.read().removeprefix(_BOM)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _not_utf_8(file, line, raw[:2], raw[error.start]) from error


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line. Raises ValueError, with the file and the line, for one that is not UTF-8."""
    with opened(file) as stream:
        for number, raw in enumerate(stream, 1):
            try:
                yield number, (raw.removeprefix(_BOM) if number == 1 else raw).decode()
            except UnicodeDecodeError as error:
                raise _not_utf_8(file, number, raw[:2] if number == 1 else b"", raw[error.start]) from error


def _not_utf_8(file: Path, line: int, begins: bytes, byte: int) -> ValueError:
    if begins in _UTF_16:
        kind, how = "it begins like UTF-16", "iconv -f utf-16 -t utf-8"
    else:
        kind, how = f"byte 0x{byte:02x} is none of its characters", "iconv -f latin1 -t utf-8, if it is Latin-1"
    return ValueError(f"{file}, line {line}, is not UTF-8: {kind}. Save the file as UTF-8 ({how}).")
