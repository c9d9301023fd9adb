"""From a request's messages and parameters to prompt tokens and generation's options."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from fullspan.decoding.language_model import LanguageModel
from fullspan.decoding.options import GenerationOptions
from fullspan.serving.errors import ApiError
from fullspan.serving.schemas import (
    ChatBody,
    ChatMessage,
    CompletionBody,
    PlainFormat,
    SamplingBody,
    SchemaFormat,
)
from fullspan.serving.tools import ToolPlan, readable_calls, tools_text
from fullspan.text.chat import encode_chat

# Parameters that generation knows by the same name.
_SAME = (
    "top_p top_k min_p typical_p repetition_penalty presence_penalty frequency_penalty seed regex grammar"
).split()


def options_of(body: SamplingBody, max_tokens: int, plan: ToolPlan | None = None) -> GenerationOptions:
    """Generation's options.

    Raises
    ------
    ConfigError
        If they contradict each other.
    """
    values: dict[str, Any] = {name: value for name in _SAME if (value := getattr(body, name)) is not None}
    values["temperature"] = 1.0 if body.temperature is None else body.temperature
    values["max_tokens"] = max_tokens
    values["stop"] = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    values["logit_bias"] = {int(token): bias for token, bias in (body.logit_bias or {}).items()}
    if isinstance(body, ChatBody) and (schema := _format_schema(body)) is not None:
        values["json_schema"] = schema
    if plan is not None and plan.json_schema is not None:
        values["json_schema"] = plan.json_schema
    if plan is not None and plan.grammar is not None:
        values["grammar"] = plan.grammar
    return GenerationOptions.build(values)


def _format_schema(body: ChatBody) -> dict[str, Any] | None:
    if isinstance(body.response_format, SchemaFormat):
        return body.response_format.json_schema.json_schema
    if isinstance(body.response_format, PlainFormat) and body.response_format.type == "json_object":
        return {"type": "object"}
    return None


def completion_prompts(model: LanguageModel, body: CompletionBody) -> list[list[int]]:
    """Tokens of a completion's prompts."""
    return text_or_tokens(model, body.prompt, "prompt")


def text_or_tokens(
    model: LanguageModel, given: str | list[str] | list[int] | list[list[int]], param: str
) -> list[list[int]]:
    """Tokens of one or several texts, which may be tokens already.

    Raises
    ------
    ApiError
        If a token is not in the vocabulary, or a text is empty.
    """
    if isinstance(given, str):
        found = [model.prompt_ids(given)]
    elif isinstance(given[0], int):
        found = [[token for token in given if isinstance(token, int)]]
    else:
        found = [model.prompt_ids(each) if isinstance(each, str) else list(_ids(each)) for each in given]
    for ids in found:
        if not ids:
            raise ApiError(400, f"{param} is empty", param=param, code="invalid_value")
        if max(ids) >= model.config.vocab_size:
            message = f"the token {max(ids)} is outside the vocabulary of {model.config.vocab_size}"
            raise ApiError(400, message, param=param, code="invalid_value")
    return found


def _ids(given: int | list[int]) -> list[int]:
    return [given] if isinstance(given, int) else given


def chat_prompt(model: LanguageModel, messages: Sequence[ChatMessage], plan: ToolPlan) -> list[int]:
    """Tokens of a conversation, up to where the assistant's answer begins.

    Spellings of special tokens inside a message stay text: a message cannot end its own turn.

    Raises
    ------
    DataError, ConfigError
        If the model has no chat template, or it refuses the messages.
    """
    template = model.tokenizer.chat_template or ""
    knows_tools = re.search(r"\btools\b", template) is not None
    turns = [_turn(message, knows_tools) for message in messages]
    variables: dict[str, Any] = {}
    if plan.tools and knows_tools:
        variables["tools"] = [tool.model_dump(exclude_none=True) for tool in plan.tools]
    elif plan.tools:
        first = turns[0]["content"] if turns[0]["role"] == "system" else ""
        others = turns[1:] if turns[0]["role"] == "system" else turns
        content = f"{first}\n\n{tools_text(plan.tools)}".strip()
        turns = [{"role": "system", "content": content}, *others]
    encoded = encode_chat(
        model.tokenizer, turns, add_generation_prompt=True, allow_special=False, variables=variables
    )
    return list(encoded.ids)


def _turn(message: ChatMessage, knows_tools: bool) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    content = message.content
    if isinstance(content, list):
        content = "".join(part.text for part in content)
    turn: dict[str, Any] = {"role": role, "content": content or ""}
    if message.name is not None:
        turn["name"] = message.name
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        calls = [call.model_dump() for call in message.tool_calls]
        for call in calls:
            call["function"]["arguments"] = _arguments(call["function"]["arguments"])
        if knows_tools:
            turn["tool_calls"] = calls
        else:
            turn["content"] = f"{turn['content']}\n{readable_calls(calls)}".strip()
    return turn


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ApiError(
            400, "the arguments of a call are not JSON", param="messages", code="invalid_value"
        ) from None
