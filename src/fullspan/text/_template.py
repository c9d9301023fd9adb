"""The sandbox in which chat templates run, with what transformers offers to them.

Templates come with downloaded models, so they are strangers' code: they see plain data only, cannot
reach Python's internals, and are stopped when they loop or print without end.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import jinja2
import jinja2.exceptions
import jinja2.ext
import jinja2.filters
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils

from fullspan.core.errors import ConfigError, DataError

MAX_STEPS = 50_000  # turns of loops and calls of macros in one rendering
MAX_CHARACTERS = 64 * 1024 * 1024
# Names in the context that no template can spell.
_MARK = "mark of blocks"
_STEPS = "steps so far"


class _Refusal(jinja2.TemplateError):
    """The template called `raise_exception`."""


class _OutOfBounds(jinja2.TemplateError):
    """The template does too much."""


class _NamedUndefined(jinja2.Undefined):
    """A missing variable may be asked about (`is defined`, `if`, `==`), but not used.

    Missing keys of what *is* there print as nothing, as everywhere in Jinja.
    """

    __slots__ = ()

    def _use(self) -> None:
        # Without a name it is an inline `if` whose `else` was left out.
        is_variable = self._undefined_obj is jinja2.utils.missing and self._undefined_name is not None
        if is_variable or self._undefined_exception is jinja2.exceptions.SecurityError:
            self._fail_with_undefined_error()

    def __str__(self) -> str:
        self._use()
        return ""

    def __iter__(self) -> Iterator[Any]:
        self._use()
        return iter(())

    def __len__(self) -> int:
        self._use()
        return 0


class _GenerationBlocks(jinja2.ext.Extension):
    """`{% generation %} … {% endgeneration %}` around what the assistant says."""

    tags = {"generation"}  # noqa: RUF012  (the name and the type that Jinja expects)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_marked", [jinja2.nodes.ContextReference()])
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _marked(self, context: jinja2.runtime.Context, caller: jinja2.runtime.Macro) -> str:
        mark = context.get(_MARK, "")
        return f"{mark}{caller()}{mark}"


class _Namespace(jinja2.utils.Namespace):
    """A namespace without underscore names, through which a template could reach Python."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _Namespace._check(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _Namespace._check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"{name!r} is not a name for a namespace")


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with a count of steps that ends runaway templates."""

    intercepted_binops = frozenset(["+", "%", "*", "**"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=_NamedUndefined,
            extensions=[_GenerationBlocks, jinja2.ext.loopcontrols],
        )
        self.filters["tojson"] = _tojson
        self.filters |= {"center": _center, "indent": _indent, "join": _join, "replace": _replace}
        # A width in a format makes a gigantic text as well, and `lipsum` a long one: nobody needs them.
        del self.filters["format"], self.globals["lipsum"]
        self.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
            "dict": _TemplateDict(),
            "namespace": _Namespace,
        }

    def step(self, context: jinja2.runtime.Context) -> None:
        """Called by every turn of a loop and by every macro."""
        if next(context[_STEPS]) >= MAX_STEPS:
            raise _OutOfBounds(f"takes more than {MAX_STEPS} steps")

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        """Add, multiply and raise, as long as the result is of a sensible size."""
        if operator == "+":
            _check_size([left, right])
            return super().call_binop(context, operator, left, right)
        if operator == "%" and isinstance(left, str):
            _check_widths(left)
            _check_size(right if isinstance(right, tuple) else [right])
        if operator == "**" and not (abs(left) < 2**32 and abs(right) < 64):
            raise _OutOfBounds(f"raises {left!r} to the power of {right!r}")
        for sequence, factor in ((left, right), (right, left)):
            too_long = isinstance(sequence, str | list | tuple) and isinstance(factor, int)
            if too_long and len(sequence) * factor > MAX_CHARACTERS:
                raise _OutOfBounds(f"repeats a text or list {factor} times")
        return super().call_binop(context, operator, left, right)

    def call(self, context: jinja2.runtime.Context, called: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls, unless it makes a gigantic text (`ljust`, `replace`, `join`)."""
        _check_size(args)
        owner = getattr(called, "__self__", None)
        if isinstance(owner, str):
            if called.__name__ == "replace":
                _check_replace(owner, *args)
            if called.__name__ == "join":
                args = (list(args[0]),)
                _check_join(owner, args[0])
        return super().call(context, called, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` and `str.format_map`, which the sandbox has its own forms of."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_widths(value.__self__)
        return wrapped

    def concatenate(self, *parts: Any) -> str:
        """`a ~ b`, as long as the result is of a sensible size."""
        texts = [str(part) for part in parts]
        _check_size(texts)
        return "".join(texts)

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        tree = super()._parse(source, name, filename)
        repeated = (jinja2.nodes.For, jinja2.nodes.Macro, jinja2.nodes.CallBlock)
        nodes: Iterator[Any] = tree.find_all(repeated)
        for node in nodes:
            step = jinja2.nodes.EnvironmentAttribute("step")
            call = jinja2.nodes.Call(step, [jinja2.nodes.ContextReference()], [], None, None)
            node.body.insert(0, jinja2.nodes.ExprStmt(call).set_lineno(node.lineno))
        for node in list(tree.find_all(jinja2.nodes.Concat)):
            # A node cannot be replaced in place, but its parts can: a concatenation of one call.
            joined = jinja2.nodes.EnvironmentAttribute("concatenate")
            node.nodes = [jinja2.nodes.Call(joined, node.nodes, [], None, None)]
        return tree


class _TemplateDict:
    """`dict(...)` without the attributes of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


def _check_size(values: Iterable[Any]) -> None:
    """Refuse numbers and texts from which something gigantic would be made."""
    size = 0
    for value in values:
        size += len(value) if isinstance(value, str | list | tuple) else 0
        if size > MAX_CHARACTERS or (isinstance(value, int) and abs(value) > MAX_CHARACTERS):
            raise _OutOfBounds("makes a text or list that is too long")


def _check_widths(template: str) -> None:
    if re.search(r"\d{7}", template):
        raise _OutOfBounds("formats a text that is too long")


def _check_replace(text: str, old: str, new: str, *_: Any) -> None:
    if len(text) + len(text) // max(len(old), 1) * len(new) > MAX_CHARACTERS:
        raise _OutOfBounds("replaces by a text that is too long")


def _check_join(separator: str, parts: Iterable[Any]) -> None:
    if sum(len(str(part)) + len(separator) for part in parts) > MAX_CHARACTERS:
        raise _OutOfBounds("joins to a text that is too long")


@jinja2.pass_eval_context
def _replace(eval_context: Any, s: str, old: str, new: str, count: int | None = None) -> str:
    _check_replace(str(s), old, new)
    return str(jinja2.filters.do_replace(eval_context, s, old, new, count))


@jinja2.pass_eval_context
def _join(eval_context: Any, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    parts = list(value)
    _check_join(d, parts)
    return str(jinja2.filters.do_join(eval_context, parts, d, attribute))


def _center(value: str, width: int = 80) -> str:
    _check_size([value, width])
    return jinja2.filters.do_center(value, width)


def _indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    _check_size([width])
    _check_replace(s, "\n", " " * width if isinstance(width, int) else width)
    return jinja2.filters.do_indent(s, width, first, blank)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter writes < as \u003c, which no model was trained on.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise _Refusal(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


@functools.lru_cache(maxsize=16)
def compile_template(source: str) -> jinja2.Template:
    """Compile a chat template; the same source is compiled once.

    Raises
    ------
    ConfigError
        If it is not a valid template.
    """
    try:
        return _Environment().from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"the chat template is not valid, line {error.lineno}: {error.message}") from None
    except RecursionError:
        raise ConfigError("the chat template is nested too deeply") from None


def run_template(template: jinja2.Template, context: Mapping[str, Any], block_mark: str = "") -> str:
    """Render a compiled template.

    Parameters
    ----------
    template
        From `compile_template`.
    context
        Plain data that the template may name.
    block_mark
        A text to put before and after the inside of each generation block.

    Raises
    ------
    DataError, ConfigError
        As `fullspan.text.chat.render` says.
    """
    own = {_MARK: block_mark, _STEPS: itertools.count()}
    parts: list[str] = []
    length = 0
    try:
        for part in template.generate({**context, **own}):
            parts.append(part)
            length += len(part)
            if length > MAX_CHARACTERS:
                raise _OutOfBounds(f"prints more than {MAX_CHARACTERS} characters")
    except _Refusal as error:
        raise DataError(f"the chat template refuses these messages: {error.message}") from None
    except _OutOfBounds as error:
        raise ConfigError(f"the chat template {error.message}, which no conversation needs") from None
    except jinja2.exceptions.SecurityError as error:
        raise ConfigError(f"the chat template reaches for what it must not: {error.message}") from None
    except jinja2.UndefinedError as error:
        raise ConfigError(
            f"the chat template names what is not there: {error.message}",
            "pass it in `variables`, or mend the template",
        ) from None
    except RecursionError:
        raise ConfigError("the chat template calls itself without end") from None
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, MemoryError) as error:
        raise ConfigError(f"the chat template fails with {type(error).__name__}: {error}") from None
    return "".join(parts)
