"""Answers that obey a JSON schema, a regular expression or a grammar.

llguidance does the work: it reads the three languages and says, for each state, which tokens may follow. Here
they are checked and bounded before a model is loaded, and one row's state gets the few operations that
generation and speculation need.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fullspan.core.errors import ConfigError, DataError
from fullspan.decoding.options import GenerationOptions

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from fullspan.text.tokenizer import Tokenizer

# Longest schema, expression or grammar. The time to build one grows with the square of some of its parts;
# at this length the worst that was found takes ten seconds.
_MAX_CHARACTERS = 100_000
# Most rules of a grammar, and most definitions that a schema refers to. The library follows chains of them
# by recursion, and a chain of 3,000 overflows a stack of 8 MiB, which ends the process.
_MAX_RULES = 500
# At most this much white space in one place of a JSON answer: without a bound, a small model that has lost
# its way writes spaces until it is cut off.
_WHITE_SPACE = r"[\x20\x0A\x0D\x09]{1,32}"


class Constraint:
    """How far one answer has come in its grammar.

    Parameters
    ----------
    matcher : llguidance.LLMatcher
    vocab_size : int
        Width of the logits.
    """

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._mask: NDArray[np.bool_] | None = None

    @property
    def accepting(self) -> bool:
        """Whether the answer may end here."""
        return bool(self._matcher.is_accepting())

    @property
    def finished(self) -> bool:
        """Whether the answer is complete and nothing can follow but its end."""
        return bool(self._matcher.is_stopped()) and self.accepting

    def mask(self) -> NDArray[np.bool_]:
        """Tokens that may come next, bool [V]; those that end an answer only where it may end.

        Raises
        ------
        DataError
            If no token can go on from here, or it takes too much work to know.
        """
        if self._mask is None:
            bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            mask = np.unpackbits(bits, bitorder="little").view(bool)[: self._vocab_size]
            if self._matcher.is_error() or not (self.accepting or self._goes_on()) or not mask.any():
                raise DataError(
                    "the constraint cannot go on from this point of the answer"
                    + (f": {self._reason()}" if self._reason() else ""),
                    "no token of the vocabulary fits, or the grammar is too ambiguous; simplify it",
                )
            self._mask = mask
        return self._mask

    def masks(self, path: Sequence[int]) -> NDArray[np.bool_]:
        """The masks along a path of proposed tokens; the state is the same afterwards.

        Returns
        -------
        ndarray of bool [m + 1, V]
            Row i follows ``path[:i]``; m is the length of the path, or the number of tokens before the first
            that is not allowed.
        """
        masks, start = [self.mask()], self._mask
        try:
            for token in path:
                if not masks[-1][token]:
                    break
                self.accept(token)
                masks.append(self.mask())
        finally:
            self.rollback(len(masks) - 1)
            self._mask = start
        return np.stack(masks)

    def n_allowed(self, path: Sequence[int]) -> int:
        """How many tokens of a path, from its start, may come; the state stays, and no mask is computed."""
        n: int = self._matcher.validate_tokens(list(path))
        return n

    def accept(self, token: int) -> None:
        """Go on by one token.

        Raises
        ------
        DataError
            If the token is not allowed here.
        """
        if not self.mask()[token]:
            raise DataError(f"the constraint does not allow token {token} at this point of the answer")
        self._matcher.consume_token(token)
        self._mask = None

    def rollback(self, n_tokens: int) -> None:
        """Take back the last `n_tokens` accepted."""
        if n_tokens:
            self._matcher.rollback(n_tokens)
            self._mask = None

    def fork(self) -> Constraint:
        """A copy that goes its own way."""
        return Constraint(self._matcher.deep_copy(), self._vocab_size)

    def _goes_on(self) -> bool:
        return not self._matcher.is_stopped()

    def _reason(self) -> str:
        message: str = self._matcher.get_error()
        return message.partition("\n")[0]


class ConstraintCompiler:
    """Makes constraints for one vocabulary; takes a second or so, so keep it.

    Parameters
    ----------
    tokenizer : Tokenizer
    vocab_size : int
        Width of the model's logits, which may be more than the tokenizer has tokens.

    Raises
    ------
    ConfigError
        If the tokenizer has no token that ends an answer.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        from llguidance import LLTokenizer

        if not tokenizer.eos_ids:
            raise ConfigError("constraints need a tokenizer with an end-of-text or end-of-turn token")
        self._vocab_size = vocab_size
        self._tokenizer = LLTokenizer(
            tokenizer.backend.to_str(), n_vocab=vocab_size, eos_token=list(tokenizer.eos_ids)
        )

    def compile(self, grammar: str) -> Constraint:
        """The state at the start of an answer, from what `grammar_of` returned.

        Raises
        ------
        ConfigError
            If no answer can obey it.
        """
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(verbose_errors=False)
        constraint = Constraint(
            LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits), self._vocab_size
        )
        try:
            constraint.mask()
        except DataError as error:
            raise ConfigError("no answer can obey the constraint", error.message) from None
        return constraint


def grammar_of(options: GenerationOptions) -> str | None:
    """The one constraint of the options as llguidance's grammar, checked; None if there is none.

    Raises
    ------
    ConfigError
        If it cannot be read, is too large, impossible, or uses what is not supported.

    Examples
    --------
    >>> grammar_of(GenerationOptions()) is None
    True
    >>> grammar_of(GenerationOptions(json_schema={"enum": []}))
    Traceback (most recent call last):
    ...
    fullspan.core.errors.ConfigError: json_schema: Unsatisfiable schema: anyOf is empty
    """
    if options.json_schema is not None:
        return _checked("json_schema", _json_grammar(options.json_schema))
    if options.regex is not None:
        return _checked("regex", _regex_grammar(options.regex))
    if options.grammar is not None:
        return _checked("grammar", _lark_grammar(options.grammar))
    return None


def _json_grammar(given: dict[str, Any] | str) -> str:
    from llguidance import LLMatcher

    schema = _read_schema(given)
    # A schema's own "x-guidance" may ask for other white space.
    grammar: str = LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_pattern": _WHITE_SPACE})
    return grammar


def _read_schema(given: dict[str, Any] | str) -> dict[str, Any]:
    try:
        if isinstance(given, str):
            text = given if given.lstrip().startswith("{") else _read_file("json_schema", Path(given))
            _check_length("json_schema", text)
            schema = json.loads(text)
        else:
            text = json.dumps(given, allow_nan=False)
            _check_length("json_schema", text)
            schema = given
    except RecursionError:
        raise ConfigError("json_schema is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"json_schema is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise ConfigError(f"json_schema should be a JSON object, got a {type(schema).__name__}")
    _check_rules("json_schema", "definitions that it refers to", len(_references(schema)))
    return schema


def _references(schema: Any) -> set[str]:
    found, waiting = set(), [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            found |= {str(value) for key, value in part.items() if key in ("$ref", "$dynamicRef")}
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return found


def _regex_grammar(given: str) -> str:
    from llguidance import LLMatcher, regex_to_lark

    _check_length("regex", given)
    # \d is 0-9, as in JSON schemas: whoever asks for digits does not expect those of sixty scripts.
    grammar: str = LLMatcher.grammar_from_lark(f"start: /{regex_to_lark(given, use_ascii='d')}/")
    return grammar


def _lark_grammar(given: Path | str) -> str:
    from llguidance import grammar_from

    text = _read_file("grammar", given) if isinstance(given, Path) else given
    _check_length("grammar", text)
    # Each rule has its colon, so their number is never less than that of the rules.
    _check_rules("grammar", "colons, one a rule", text.count(":") - text.count("::="))
    try:
        grammar: str = grammar_from("grammar", text)
    except ValueError as error:
        raise ConfigError(f"grammar: {error}", "it should be Lark, or GBNF as llama.cpp reads it") from None
    return grammar


def _read_file(option: str, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{option}: cannot read {str(file)[:200]!r}: {reason}") from None


def _check_length(option: str, text: str) -> None:
    if len(text) > _MAX_CHARACTERS:
        raise ConfigError(f"{option} has {len(text):,} characters, at most {_MAX_CHARACTERS:,} are read")


def _check_rules(option: str, what: str, n: int) -> None:
    if n > _MAX_RULES:
        raise ConfigError(f"{option} has {n:,} {what}, at most {_MAX_RULES} are read")


def _checked(option: str, grammar: str) -> str:
    from llguidance import LLMatcher

    message = LLMatcher.validate_grammar(grammar)
    if message and not message.startswith("WARNING"):
        # Of a wrong expression the parser shows the place in several lines and names the error in the last.
        lines = message.splitlines()
        named = next((line for line in lines if line.startswith("error: ")), lines[0])
        raise ConfigError(
            f"{option}: {named.removeprefix('error: ')[:500]}",
            'say what you mean with anyOf, or put "x-guidance": {"coerce_one_of": true} into the schema'
            if "coerce_one_of" in named
            else "",
        )
    return grammar
