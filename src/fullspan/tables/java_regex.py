r"""Java's regular expressions in RE2's syntax, where both mean the same; everything else is refused.

Hive hands patterns to ``java.util.regex``, DuckDB to RE2. They differ silently in what ``\s``, ``.`` and
``$`` match and in empty matches; look-around, back-references and possessive quantifiers are Java's only.
"""

from __future__ import annotations

import re

from fullspan.core.errors import ConfigError

# Java's line terminators and the white space of \s, spelled out.
_TERMINATORS = r"\n\r\x{85}\x{2028}\x{2029}"
_SPACE = r"\t\n\x0B\f\r "
_QUANTIFIER = re.compile(r"(?:[*+?]|\{\d+(?:,\d*)?\})\??")


def to_re2(pattern: str) -> str:
    r"""Rewrite a Java pattern so that RE2 finds the same matches.

    Raises
    ------
    ConfigError
        If the pattern uses what RE2 lacks or reads differently.

    Examples
    --------
    >>> to_re2(r"\s+\d.")
    '[\\t\\n\\x0B\\f\\r ]+\\d[^\\n\\r\\x{85}\\x{2028}\\x{2029}]'
    """
    out, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            out.append(_escape(pattern, at, in_class=False))
            at += 2
        elif char == "[":
            text, at = _class(pattern, at)
            out.append(text)
        elif char == ".":
            out.append(f"[^{_TERMINATORS}]")
            at += 1
        elif char == "$":
            # Java's $ also matches before a final line terminator; callers guard the text instead.
            out.append(r"\z")
            at += 1
        elif char == "(" and pattern.startswith("(?", at) and not pattern.startswith("(?:", at):
            raise _refused(pattern, pattern[at : at + 3])
        elif match := _QUANTIFIER.match(pattern, at):
            at = match.end()
            if pattern.startswith("+", at) or _QUANTIFIER.match(pattern, at):
                raise _refused(pattern, match[0] + pattern[at])
            out.append(match[0])
        elif char in "{":
            raise _refused(pattern, char)
        else:
            out.append(char)
            at += 1
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"regular expression {pattern!r} is not valid: {error}") from None
    return "".join(out)


def needs_guard(pattern: str) -> bool:
    """Whether a text that ends in a line terminator may match differently (``$`` is in the pattern)."""
    return "$" in re.sub(r"\\.|\[[^\]]*\]", "", pattern)


def n_groups(pattern: str) -> int:
    """How many groups capture."""
    return re.compile(pattern).groups


def refuse_empty_match(pattern: str) -> None:
    """Refuse a pattern that matches the empty string: Java and RE2 go on differently after such a match."""
    if not pattern or re.compile(pattern).match(""):
        raise ConfigError(
            f"regular expression {pattern!r} matches the empty string, where Hive goes on differently",
            "write it so that it takes at least one character (+ for *)",
        )


def replacement(text: str, pattern: str) -> str:
    r"""Java's replacement text (``$1``, ``\$``) in DuckDB's syntax (``\1``).

    Examples
    --------
    >>> replacement("<$1>", "(a)")
    '<\\1>'
    """
    out, at = [], 0
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            out.append(text[at + 1] if text[at + 1] != "\\" else "\\\\")
            at += 2
        elif char == "$":
            digit = text[at + 1 : at + 2]
            two = text[at + 2 : at + 3].isdigit()
            if not digit.isdigit() or int(digit) > n_groups(pattern) or two:
                raise ConfigError(
                    f"replacement {text!r} names no group of {pattern!r}",
                    r"write $1 for the first group, \$ for $",
                )
            out.append("\\" + digit)
            at += 2
        elif char == "\\":
            raise ConfigError(f"replacement {text!r} ends in a backslash")
        else:
            out.append(char)
            at += 1
    return "".join(out)


def _escape(pattern: str, at: int, in_class: bool) -> str:
    char = pattern[at + 1 : at + 2]
    if char == "s":
        return _SPACE if in_class else f"[{_SPACE}]"
    if char == "S" and not in_class:
        return f"[^{_SPACE}]"
    if char and (char in "dDwWtnrf" or not (char.isalnum() or ord(char) > 127)):
        return "\\" + char
    raise _refused(pattern, "\\" + char)


def _class(pattern: str, at: int) -> tuple[str, int]:
    start, out = at, ["["]
    at += 1
    if pattern.startswith("^", at):
        out.append("^")
        at += 1
    first = at
    while at < len(pattern) and pattern[at] != "]":
        if pattern[at] == "\\":
            out.append(_escape(pattern, at, in_class=True))
            at += 2
        elif pattern[at] == "[" or pattern.startswith("&&", at):
            raise _refused(pattern, pattern[at : at + 2])
        else:
            out.append(pattern[at])
            at += 1
    if at >= len(pattern) or at == first:
        raise _refused(pattern, pattern[start : at + 1])
    return "".join([*out, "]"]), at + 1


def _refused(pattern: str, part: str) -> ConfigError:
    return ConfigError(
        f"regular expression {pattern!r}: {part!r} is not translated, DuckDB has no equal of it",
        r"use plain characters, [...], \d, \w, \s, ., ^, $, (...), (?:...), |, *, +, ? and {m,n}",
    )
