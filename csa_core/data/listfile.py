"""Reading a list of images: a line `path label` for each, as people's tools write it.

UTF-8 or UTF-16, with or without a byte-order mark, any end of line; path and label separated by spaces, tabs, a comma
or a semicolon; quotes around either; a first line that names the columns (`path,label`), which may then come in any
order with others beside them.
"""

import codecs
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from csa_core.errors import Missing, UserError
from csa_core.files import read_bytes

MOST_LIST = 2**29
"""Bytes of the longest list; ImageNet's has 60 million."""
PATH_WORDS = {"path", "paths", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img"}
LABEL_WORDS = {
    *("label", "labels", "class", "class_label", "class_id", "classid", "target", "category", "category_id", "y")
}
LINE = re.compile(r"(?P<path>.*?)(?:\s*[,;]\s*|\s+)(?P<quote>[\"']?)(?P<label>\d{1,9})(?P=quote)", re.DOTALL)
OTHER = re.compile(r".*?\w(?P<separator>[^\w\s.,;/\\\"'-]+)\s*\d+")
EXPECTED = "write 'path label', with a space, a tab, a comma or a semicolon between"
HEADED = EXPECTED.replace("label'", "label', or first a line that names the columns (path,label)")


class Line(NamedTuple):
    """One image of a list."""

    number: int
    path: str
    label: int


def read_lines(path: Path) -> Iterator[Line]:
    """Yield the images that a list names; a name that is no UTF-8 comes as `os.fsdecode` gives it.

    Raises:
        UserError: naming the list and its line: unreadable, no label, another separator.
    """
    lines = text_of(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    columns: Columns | None = None
    is_first = True
    for number, line in enumerate(lines, 1):
        if not (text := line.strip().strip("\0")):
            continue
        where = f"{path}: line {number}"
        if is_first and (columns := _columns(text, where)):
            is_first = False
            continue
        is_first = False
        name, label = _parts(line, text, columns, where, EXPECTED if number > 1 else HEADED)
        yield Line(number, name, label)


def text_of(path: Path) -> str:
    """Return the text of a list, whatever its encoding.

    Raises:
        UserError: it cannot be read.
    """
    try:
        content = bytes(read_bytes(path, MOST_LIST))
    except Missing:
        raise UserError(f"{path}: cannot be read; set data.train_list and data.test_list to the list files") from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif content[1:2] == b"\0" or content[:1] == b"\0":  # without a mark: which byte of the first letter is empty
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    else:  # file names may be no UTF-8, and are then found as they are
        return content.decode("utf-8-sig", errors="surrogateescape")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text; save the list as UTF-8") from None


class Columns(NamedTuple):
    """What the first line of a list says of the others."""

    separator: str
    path: int
    label: int
    total: int


def _columns(text: str, where: str) -> Columns | None:
    """Return separator and places of path and label, where a line names the columns."""
    for separator in ("\t", ";", ",", *([] if re.search("[\t;,]", text) else " ")):
        words = [re.sub(r"[\s-]+", "_", word.strip().strip("\"'").lower()) for word in text.split(separator)]
        of_path = [i for i, word in enumerate(words) if word in PATH_WORDS]
        of_label = [i for i, word in enumerate(words) if word in LABEL_WORDS]
        if of_path and of_label:
            places = _the_one(of_path, words, "path", where), _the_one(of_label, words, "label", where)
            return Columns(separator, *places, len(words))
    return None


def _the_one(places: list[int], words: list[str], usual: str, where: str) -> int:
    """Return which of the columns that could be the path or the label is: of several the one that is called so."""
    called = [place for place in places if words[place] == usual]
    if len(places) > 1 and len(called) != 1:
        could = ", ".join(f"'{words[place]}'" for place in places)
        raise UserError(f"{where}: {could} could each be the {usual}; call the one that is '{usual}'")
    return (called or places)[0]


def _parts(line: str, text: str, columns: Columns | None, where: str, expected: str) -> tuple[str, int]:
    """Return path and label of a line."""
    if columns:
        try:
            fields = next(csv.reader([line], delimiter=columns.separator, skipinitialspace=True))
        except csv.Error as error:
            raise UserError(f"{where}: '{text[:60]}': {error}; {expected}") from None
        # A name may hold the separator: where there are but path and label, the label is what stands last.
        is_split = columns.total == 2 and columns.path == 0 and len(fields) > 2
        if not is_split and len(fields) > max(columns.path, columns.label):
            if fields[columns.path].strip() and _is_number(fields[columns.label]):
                return fields[columns.path].strip(), int(fields[columns.label])
        elif is_split and (match := LINE.fullmatch(text)) and match["path"]:
            return _unquoted(match["path"]), int(match["label"])
    elif (match := LINE.fullmatch(text)) and match["path"]:
        return _unquoted(match["path"]), int(match["label"])
    elif other := OTHER.fullmatch(text):
        raise UserError(f"{where}: '{text[:60]}': '{other['separator']}' is not a separator; {expected}")
    raise UserError(f"{where}: '{text[:60]}' has no label; {expected}, and a number from 0 as label")


def _is_number(text: str) -> bool:
    return text.strip().isascii() and text.strip().isdecimal() and len(text.strip()) < 10


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1].replace(text[0] * 2, text[0])
    return text
