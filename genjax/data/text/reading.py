"""The one reader of text files, for every source of text.

A text file is UTF-8, or UTF-16 or UTF-32 with a byte order mark. What is read has no byte order mark, a line ends in a
newline (\\n) whether the file has \\n, \\r\\n or \\r, and so does the last line, which a file may leave open. No other
character ends a line: form feed, U+0085, U+2028 and their like stay. A file with a NUL is binary, and is refused.
"""

import codecs
from pathlib import Path

from genjax.core.errors import UserError

BYTE_ORDER_MARKS = {  # that of UTF-32-LE begins with that of UTF-16-LE
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def read_text(path: str) -> str:
    """Reads a text file; see the module's docstring.

    Raises:
        UserError: the file cannot be read, is not text of its encoding, or has a NUL; names file and byte offset.
    """
    return _decode(path, _read(path))


def read_utf8(path: str) -> bytes:
    """Reads a text file as UTF-8, as `read_text` does, but leaves bytes that are not UTF-8 as they are.

    Raises:
        UserError: the file cannot be read, has a NUL, or has the byte order mark of UTF-16 or UTF-32 and is not that.
    """
    data = _read(path)
    mark, encoding = _encoding(data)
    if encoding != "utf-8":
        return _decode(path, data).encode()
    if (offset := data.find(0)) >= 0:
        raise _has_nul(path, offset)
    data = data.removeprefix(mark).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data if not data or data.endswith(b"\n") else data + b"\n"


def with_newlines(text: str) -> str:
    """The text with \\n in place of \\r\\n and \\r."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines(text: str) -> list[str]:
    """The lines of a text that `read_text` has read, without line ends, blanks and tabs around them, or empty ones."""
    return [line for each in text.split("\n") if (line := each.strip(" \t"))]


def _read(path: str) -> bytes:
    if not path:
        raise UserError("a text file is needed: set config.data.source.path=FILE")
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UserError(f"cannot read the text file {path!r}: {reason}") from None


def _encoding(data: bytes) -> tuple[bytes, str]:
    return next(
        ((mark, name) for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)), (b"", "utf-8")
    )


def _decode(path: str, data: bytes) -> str:
    mark, encoding = _encoding(data)
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"the text file {path!r} is not {encoding.upper()}: {error.reason} at byte offset "
            f"{len(mark) + error.start}; convert it to UTF-8"
        ) from None
    if (place := text.find("\0")) >= 0:
        raise _has_nul(path, len(mark) + len(text[:place].encode(encoding)))
    text = with_newlines(text)
    return text if not text or text.endswith("\n") else text + "\n"


def _has_nul(path: str, offset: int) -> UserError:
    return UserError(
        f"the text file {path!r} is not UTF-8 text: NUL at byte offset {offset}; it is binary, or UTF-16 without a "
        "byte order mark"
    )
