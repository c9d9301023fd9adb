"""Texts of a table's cells that stand for numbers or times, as spreadsheets and other programs write them.

Only a whole column shows whether a comma parts thousands or is the decimal sign, and whether the day or the
month of 01/02/2024 comes first. So a form is found once, from the rows that are learnt from, and later
texts are read by it.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

MISSING = ("", "?", "-", ".", "na", "n/a", "#n/a", "nan", "null", "none", "<na>")
"""What stands for a missing number or time, in any case of letters, with spaces around it or not."""

PLAIN = "1234.5"
THOUSANDS = "1,234.5"
DECIMAL_COMMA = "1.234,5"
BOOLEAN = "true"
_NUMBERS = {
    PLAIN: r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$",
    THOUSANDS: r"^[+-]?([1-9]\d{0,2}(,\d{3})+|\d+)(\.\d+)?$",
    DECIMAL_COMMA: r"^[+-]?([1-9]\d{0,2}(\.\d{3})+|\d+)(,\d+)?$",
}
# A postcode or an account, not a quantity; no float holds so many digits either.
_CODE = r"^[+-]?(0\d|\d{17})"
_CLOCK = r"( \d{1,2}:\d\d(:\d\d)?)?$"
_TIMES = {
    "%d.%m.%Y": r"^\d{1,2}\.\d{1,2}\.\d{4}" + _CLOCK,
    "%d/%m/%Y": r"^([012]?\d|3[01])/(0?\d|1[012])/\d{4}" + _CLOCK,
    "%m/%d/%Y": r"^(0?\d|1[012])/([012]?\d|3[01])/\d{4}" + _CLOCK,
    "%d-%m-%Y": r"^([012]?\d|3[01])-(0?\d|1[012])-\d{4}" + _CLOCK,
    "%m-%d-%Y": r"^(0?\d|1[012])-([012]?\d|3[01])-\d{4}" + _CLOCK,
    "%Y/%m/%d": r"^\d{4}/\d{1,2}/\d{1,2}" + _CLOCK,
}


def is_mark(text: str) -> bool:
    """Whether a text, not an empty one, stands for a missing number or time."""
    return bool(text.strip()) and text.strip().lower() in MISSING


def without_marks(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """The texts without spaces around them, and NULL where they stand for a missing value.

    Examples
    --------
    >>> without_marks(pa.chunked_array([[" 1", "NA", "?", None]])).to_pylist()
    ['1', None, None, None]
    """
    trimmed = pc.utf8_trim_whitespace(texts.cast(pa.string()))
    missing = pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(MISSING))
    return pc.if_else(missing, pa.scalar(None, pa.string()), trimmed)


def number_form(texts: pa.ChunkedArray) -> str | None:
    """How a column of texts writes numbers; None if it does not, or if they are codes such as 01234.

    Plain digits in every row are a text's own: whoever wrote them as texts has meant it so. With marks for
    missing values among them, or with commas, they are numbers that no reader of files has recognised.

    Examples
    --------
    >>> [number_form(pa.chunked_array([column])) for column in (["1", "NA"], ["1,234", "5"], ["1,5", "2"])]
    ['1234.5', '1,234.5', '1.234,5']
    >>> [number_form(pa.chunked_array([column])) for column in (["1", "2"], ["01234", "NA"], ["a", "?"])]
    [None, None, None]
    """
    known = without_marks(texts).drop_null()
    if not len(known) or _any(known, _CODE):
        return None
    for form, pattern in _NUMBERS.items():
        if _all(known, pattern):
            return None if form == PLAIN and len(known) == len(texts.drop_null()) else form
    return None


def read_numbers(texts: pa.ChunkedArray, form: str) -> pa.ChunkedArray:
    """Texts as doubles; NULL where they stand for a missing value.

    Raises
    ------
    ValueError
        With the row and the text, if one is no number in this form.

    Examples
    --------
    >>> read_numbers(pa.chunked_array([["1.234,5", "?"]]), DECIMAL_COMMA).to_pylist()
    [1234.5, None]
    """
    plain = without_marks(texts)
    pattern = "(?i)^(true|false|t|f|yes|no|y|n|1|0)$" if form == BOOLEAN else _NUMBERS[form]
    wrong = pc.fill_null(pc.invert(pc.match_substring_regex(plain, pattern)), False)
    if pc.any(wrong, min_count=0).as_py():
        row = pc.index(wrong, True).as_py()
        raise ValueError(f"{texts[row].as_py()!r} in row {row + 1}")
    if form == BOOLEAN:
        return pc.match_substring_regex(plain, "(?i)^[ty1]").cast(pa.float64())
    if form == THOUSANDS:
        plain = pc.replace_substring(plain, ",", "")
    elif form == DECIMAL_COMMA:
        plain = pc.replace_substring(pc.replace_substring(plain, ".", ""), ",", ".")
    return plain.cast(pa.float64())


def time_form(texts: pa.ChunkedArray) -> str | None:
    """How a column of texts writes days, with a time of day or without; None if it does not, or unsurely.

    Examples
    --------
    >>> [time_form(pa.chunked_array([column])) for column in (["31.1.2024"], ["31/01/2024 7:30", "NA"])]
    ['%d.%m.%Y', '%d/%m/%Y']
    >>> time_form(pa.chunked_array([["01/02/2024"]])) is None  # January or February
    True
    """
    known = without_marks(texts).drop_null()
    if not len(known):
        return None
    forms = [form for form, pattern in _TIMES.items() if _all(known, pattern)]
    return forms[0] if len(forms) == 1 and not read_times(known, forms[0]).null_count else None


def is_unsure_day(texts: pa.ChunkedArray) -> bool:
    """Whether texts are days of which nothing tells if the day or the month comes first."""
    known = without_marks(texts).drop_null()
    return bool(len(known)) and sum(_all(known, pattern) for pattern in _TIMES.values()) > 1


def read_times(texts: pa.ChunkedArray, form: str) -> pa.ChunkedArray:
    """Texts in a form of `time_form` as timestamps; NULL where they are missing or no times of this form.

    Examples
    --------
    >>> read_times(pa.chunked_array([["31/12/2024 7:30", "?"]]), "%d/%m/%Y").to_pylist()
    [datetime.datetime(2024, 12, 31, 7, 30), None]
    """
    plain = without_marks(texts)
    ways = (form, form + " %H:%M", form + " %H:%M:%S")
    return pc.coalesce(*(pc.strptime(plain, format=way, unit="us", error_is_null=True) for way in ways))


def _all(texts: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, pattern)).as_py())


def _any(texts: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(texts, pattern)).as_py())
