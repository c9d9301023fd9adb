"""The sandbox in which chat templates run, with what transformers offers to them.

Templates come with downloaded models, so they are strangers' code: they see plain data only, cannot
reach Python's internals, and are stopped when they loop or print without end.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
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
MAX_CHARACTERS = 64 * 1024 * 1024  # read and made by all operations of one rendering together
# A name in the context that no template can spell.
_MARK = "mark of blocks"
_MAX_WIDTH = 9_999  # of a field in a format
# Filters that hand on items without making texts of them.
_BY_REFERENCE = frozenset(
    "attr count d default dictsort first groupby items last length list map max min reject "
    "rejectattr reverse select selectattr sort unique".split()
)


class _Refusal(jinja2.TemplateError):
    """The template called `raise_exception`."""


class _OutOfBounds(jinja2.TemplateError):
    """The template does too much."""


class _Work:
    """What one rendering has done so far."""

    def __init__(self) -> None:
        self.steps = 0
        self.characters = 0

    def charge(self, characters: int) -> None:
        """Count characters (or items of a list) before they are made."""
        self.characters += characters
        if self.characters > MAX_CHARACTERS:
            raise _OutOfBounds(f"makes more than {MAX_CHARACTERS} characters")


_work: ContextVar[_Work] = ContextVar("work")


def _charge(characters: int) -> None:
    _work.get().charge(characters)


def _size(value: Any) -> int:
    """Characters of `value` printed, nearly; a list counts its items as often as they are in it."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, int):
        return 1 + value.bit_length() // 3
    if not isinstance(value, Mapping | list | tuple):
        return 1
    size = 2
    for item in itertools.chain(value, value.values()) if isinstance(value, Mapping) else value:
        size += 2 + _size(item)
        if size > MAX_CHARACTERS:
            break
    return size


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | Mapping | list | tuple) else 0


def _numbers(values: Iterable[Any]) -> int:
    return sum(abs(value) for value in values if isinstance(value, int))


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

    def __repr__(self) -> str:
        return "<namespace>"

    @staticmethod
    def _check(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"{name!r} is not a name for a namespace")


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which counts the work of a rendering and so ends runaway templates."""

    intercepted_binops = frozenset(["+", "%", "*", "**"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=_NamedUndefined,
            extensions=[_GenerationBlocks, jinja2.ext.loopcontrols],
            optimized=False,  # nothing runs while a template is compiled
            finalize=_printed,
        )
        # They make gigantic texts of small ones, and no chat needs them.
        for name in ("format", "wordwrap", "urlize", "xmlattr", "pprint"):
            del self.filters[name]
        del self.globals["lipsum"]
        self.filters["tojson"] = _tojson
        self.filters = {name: _charged(name, function) for name, function in self.filters.items()}
        self.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
            "dict": _TemplateDict(),
            "namespace": _Namespace,
        }

    def step(self, characters: int) -> None:
        """Called by every turn of a loop and by every macro, with the length of the literal text inside."""
        work = _work.get()
        work.steps += 1
        if work.steps > MAX_STEPS:
            raise _OutOfBounds(f"takes more than {MAX_STEPS} steps")
        work.charge(characters)

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        """Add, multiply, raise and format, once the result has been charged."""
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" and not (numbers and abs(left) < 2**32 and abs(right) < 64):
            raise _OutOfBounds(f"raises {left!r} to the power of {right!r}")
        if operator == "%" and isinstance(left, str | bytes):
            _charge(str(left).count("%") * (_size(right) + _MAX_WIDTH))
            _check_widths(str(left))
        if operator == "+":
            _charge(_length(left) + _length(right))
        if operator == "*" and not numbers:
            _charge(_length(left) * _numbers([right]) + _length(right) * _numbers([left]))
        if operator == "*" and numbers and _size(left) + _size(right) > 1000:
            raise _OutOfBounds("multiplies gigantic numbers")
        return super().call_binop(context, operator, left, right)

    def call(self, context: jinja2.runtime.Context, called: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls, once the result of a text's method (`ljust`, `replace`) is charged."""
        owner = getattr(called, "__self__", None)
        if isinstance(owner, str | bytes | int | float):
            if called.__name__ == "join" and args:
                args = (list(args[0]), *args[1:])
            _charge_result(called.__name__, owner, [*args, *kwargs.values()])
        else:
            _charge(_length(owner))
        return super().call(context, called, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` and `str.format_map`, which the sandbox has its own forms of."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def charged(*args: Any, **kwargs: Any) -> str:
            fields = list(string.Formatter().parse(value.__self__))
            for _, _, width, _ in fields:
                if width and re.search(r"\{|\d{5}", width):
                    raise _OutOfBounds("formats with a computed or a gigantic width")
            _charge(len(value.__self__) + len(fields) * (_size(args) + _size(kwargs) + _MAX_WIDTH))
            return wrapped(*args, **kwargs)

        return charged

    def concatenate(self, *parts: Any) -> str:
        """`a ~ b`."""
        _charge(sum(map(_size, parts)))
        return "".join(map(str, parts))

    def sliced(self, value: Any) -> Any:
        """What a slice is taken of."""
        _charge(_length(value))
        return value

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        tree = super()._parse(source, name, filename)
        repeated = (jinja2.nodes.For, jinja2.nodes.Macro, jinja2.nodes.CallBlock)
        nodes: Iterator[Any] = tree.find_all(repeated)
        for node in nodes:
            step = jinja2.nodes.EnvironmentAttribute("step")
            literal = sum(len(data.data) for data in node.find_all(jinja2.nodes.TemplateData))
            call = jinja2.nodes.Call(step, [jinja2.nodes.Const(literal)], [], None, None)
            node.body.insert(0, jinja2.nodes.ExprStmt(call).set_lineno(node.lineno))
        for node in list(tree.find_all(jinja2.nodes.Concat)):
            # A node cannot be replaced in place, but its parts can: a concatenation of one call.
            joined = jinja2.nodes.EnvironmentAttribute("concatenate")
            node.nodes = [jinja2.nodes.Call(joined, node.nodes, [], None, None)]
        for node in list(tree.find_all(jinja2.nodes.Getitem)):
            if isinstance(node.arg, jinja2.nodes.Slice):
                sliced = jinja2.nodes.EnvironmentAttribute("sliced")
                node.node = jinja2.nodes.Call(sliced, [node.node], [], None, None)
        return tree


class _TemplateDict:
    """`dict(...)` without the attributes of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


def _check_widths(template: str) -> None:
    if re.search(r"%[^a-zA-Z%]*(\*|\d{5})", template):
        raise _OutOfBounds("formats with a computed or a gigantic width")


def _charge_result(name: str, owner: Any, values: list[Any]) -> None:
    """Charge what the method or filter `name` of `owner` makes."""
    size, others = _size(owner), sum(map(_size, values)) + _numbers(values)
    if name == "replace" and len(values) >= 2:
        _charge(size + (size // max(_length(values[0]), 1) + 1) * _length(values[1]))
    elif name == "join":  # the separator owns the method, and the list the filter
        separator, parts = (owner, values[:1]) if isinstance(owner, str | bytes) else (values[:1], owner)
        _charge(_size(parts) + (_length(owner) + _length(parts) + 1) * _size(separator))
    elif name in ("indent", "tojson", "sum", "translate", "expandtabs"):
        _charge((1 + size) * (1 + others))
    else:
        _charge(size + others)


def _charged(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a filter run once its result has been charged."""
    skipped = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def charged(*args: Any, **kwargs: Any) -> Any:
        value, *others = args[skipped:]
        if isinstance(value, Iterator):
            value = list(value)
        if name in _BY_REFERENCE:
            _charge(_length(value))
        else:
            _charge_result(name, value, [*others, *kwargs.values()])
        return function(*args[:skipped], value, *others, **kwargs)

    return charged


@jinja2.pass_context  # which also keeps Jinja from printing constants while it compiles
def _printed(context: jinja2.runtime.Context, value: Any) -> Any:
    _charge(_size(value))
    return value


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
    _check_widths(format)
    _charge(64 * len(format))
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
    token = _work.set(_Work())
    try:
        return template.render({**context, _MARK: block_mark})
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
    finally:
        _work.reset(token)
