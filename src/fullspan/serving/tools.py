"""Tools: what the model is told about them, how its answer is held to them, and calls read from it.

Where a call is required, a JSON schema constrains the answer. Where the model may choose, a grammar does: the
answer is a call, or text that does not begin as one, so the first character tells which.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fullspan.serving.errors import ApiError
from fullspan.serving.schemas import ChatBody, Function, Tool, ToolChoice

# What many templates teach their models to put around a call.
_OPEN, _CLOSE = "<tool_call>\n", "\n</tool_call>"
_NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}
_WHITE_SPACE = r"[\x20\x0A\x0D\x09]{1,32}"


@dataclass(frozen=True)
class ToolPlan:
    """What tools mean for one answer.

    Attributes
    ----------
    tools : tuple of Tool
        That the model is told about.
    json_schema, grammar : optional
        The constraint.
    is_open : bool
        Whether the answer may be text as well.
    tagged : bool
        Whether a call stands between tags.
    """

    tools: tuple[Tool, ...] = ()
    json_schema: dict[str, Any] | None = None
    grammar: str | None = None
    is_open: bool = True
    tagged: bool = False

    def may_be_call(self, text: str) -> bool:
        """Whether an answer that begins so is a call, or may become one."""
        return bool(self.tools) and (not self.is_open or text[:1] in ("", "<" if self.tagged else "{"))

    def call_of(self, text: str) -> dict[str, Any] | None:
        """The call that a whole answer makes, as OpenAI's interface has it; None if it makes none."""
        if not self.tools or not self.may_be_call(text):
            return None
        try:
            call = json.loads(text.removeprefix(_OPEN).removesuffix(_CLOSE))
            arguments = json.dumps(call["arguments"], ensure_ascii=False)
            function = {"name": call["name"], "arguments": arguments}
        except (ValueError, KeyError, TypeError, RecursionError):
            return None  # cut off by its length
        return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def tool_plan(body: ChatBody, template: str) -> ToolPlan:
    """What a request's `tools` and `tool_choice` mean.

    Raises
    ------
    ApiError
        If they contradict each other or another constraint.
    """
    tools, choice = tuple(body.tools or ()), body.tool_choice
    if not tools:
        if choice not in (None, "none", "auto"):
            raise ApiError(400, "tool_choice needs tools", param="tool_choice", code="invalid_value")
        return ToolPlan()
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise ApiError(400, "two tools have the same name", param="tools", code="invalid_value")
    if choice == "none":
        return ToolPlan()
    for name in ("regex", "grammar", "response_format"):
        value = getattr(body, name)
        if value is not None and getattr(value, "type", None) != "text":
            raise ApiError(400, f"{name} and tools exclude each other", param=name, code="invalid_value")
    if isinstance(choice, ToolChoice):
        if choice.function.name not in names:
            message = f"tool_choice names no tool of the request: {choice.function.name!r}"
            raise ApiError(400, message, param="tool_choice", code="invalid_value")
        named = [tool.function for tool in tools if tool.function.name == choice.function.name]
        return ToolPlan(tools, json_schema=_schema(named), is_open=False)
    functions = [tool.function for tool in tools]
    if choice == "required":
        return ToolPlan(tools, json_schema=_schema(functions), is_open=False)
    tagged = _OPEN.strip() in template
    return ToolPlan(tools, grammar=_grammar(functions, tagged), tagged=tagged)


def _schema(functions: Sequence[Function]) -> dict[str, Any]:
    """Of a call of one of the functions; each is an object with a name and arguments."""
    calls: list[dict[str, Any]] = []
    definitions: dict[str, Any] = {}
    for function in functions:
        parameters = dict(function.parameters or _NO_PARAMETERS)
        for group in ("$defs", "definitions"):  # references are looked up from the root
            definitions.setdefault(group, {}).update(parameters.pop(group, {}))
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": function.name}, "arguments": parameters},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    schema = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return schema | {group: found for group, found in definitions.items() if found}


def _grammar(functions: Sequence[Function], tagged: bool) -> str:
    schema = _schema(functions) | {"x-guidance": {"whitespace_pattern": _WHITE_SPACE}}
    opening, closing = (json.dumps(_OPEN), json.dumps(_CLOSE)) if tagged else ("", "")
    return (
        f"start: call | text\n"
        f"call: {opening} json {closing}\n"
        f"json: %json {json.dumps(schema)}\n"
        f'text: /[^{"<" if tagged else "{"}](.|\\n)*/ | ""\n'
    )


def tools_text(tools: Sequence[Tool]) -> str:
    """What a model is told whose template knows nothing of tools."""
    functions = "\n".join(
        json.dumps(tool.function.model_dump(exclude_none=True, exclude={"strict"}), ensure_ascii=False)
        for tool in tools
    )
    return (
        "You can call these functions:\n"
        f"{functions}\n"
        'To call one, answer with nothing but {"name": its name, "arguments": an object of its arguments}.'
    )


def readable_calls(calls: Sequence[Mapping[str, Any]]) -> str:
    """Calls of an earlier turn, for a template that knows nothing of tools."""
    return "\n".join(
        json.dumps({"name": call["function"]["name"], "arguments": call["function"]["arguments"]})
        for call in calls
    )
