"""Bodies of requests and answers, as OpenAI's interface has them.

A parameter that is not here is refused by name: leaving it out silently would give another answer than was
asked for. What generation can do and OpenAI's interface has no name for, has fullspan's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

_Text = Annotated[str, StringConstraints(min_length=1)]
_Texts = Annotated[list[str], Field(min_length=1)]
_Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
_TokenLists = Annotated[list[_Tokens], Field(min_length=1)]


class Body(BaseModel):
    """A part of a request."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class StreamOptions(Body):
    """What a stream says besides the answer."""

    include_usage: bool | None = None


class SamplingBody(Body):
    """What completions and chats have in common; null stands for the default."""

    model: str
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=1)
    min_p: float | None = Field(None, ge=0, le=1)
    typical_p: float | None = Field(None, gt=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=100)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(None, max_length=1024)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: _Text | Annotated[list[_Text], Field(max_length=16)] | None = None
    n: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    regex: _Text | None = Field(None, description="the answer as a whole matches it")
    grammar: _Text | None = Field(None, description="the answer obeys it: Lark, or GBNF")
    user: str | None = Field(None, description="taken for the sake of clients that send it, and not used")

    @field_validator("logit_bias")
    @classmethod
    def _tokens_are_numbers(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value is not None and not all(key.isdecimal() and len(key) < 10 for key in value):
            raise ValueError("its keys should be token ids, such as '42'")
        return value


class CompletionBody(SamplingBody):
    """Body of /v1/completions."""

    prompt: str | _Texts | _Tokens | _TokenLists
    logprobs: int | None = Field(None, ge=0, le=20)


class TextPart(Body):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class FunctionCall(Body):
    """Which function an assistant called, with its arguments as JSON."""

    name: str
    arguments: str


class ToolCall(Body):
    """A call in an assistant's message."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Body):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: None = None


class Function(Body):
    """A function that the model may call."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = Field(None, description="arguments always obey the schema")


class Tool(Body):
    """A tool."""

    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    """The name in a choice."""

    name: str


class ToolChoice(Body):
    """The one tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class PlainFormat(Body):
    """Any text, or any JSON object."""

    type: Literal["text", "json_object"]


class NamedSchema(Body):
    """A JSON schema with a name."""

    name: str
    # "schema" is a method of pydantic's models.
    json_schema: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = Field(None, description="answers always obey the schema")


class SchemaFormat(Body):
    """JSON that obeys a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class ChatBody(SamplingBody):
    """Body of /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: PlainFormat | SchemaFormat | None = None
    tools: list[Tool] | None = Field(None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = Field(None, description="an answer never calls more than one tool")


class EmbeddingsBody(Body):
    """Body of /v1/embeddings."""

    model: str
    input: str | _Texts | _Tokens | _TokenLists
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = Field(None, description="not used")


class TokenizeBody(Body):
    """Body of /tokenize: a text or a conversation."""

    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(None, min_length=1)
    add_special_tokens: bool = True


class DetokenizeBody(Body):
    """Body of /detokenize."""

    tokens: list[Annotated[int, Field(ge=0)]]


# Answers -------------------------------------------------------------------------------------------


class ErrorDetail(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """Every answer that is an error."""

    error: ErrorDetail


class CachedTokens(BaseModel):
    """Of a prompt, what was kept from before."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens of a request and its answers."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class TopLogprob(BaseModel):
    """A token and how likely it was; bytes are null where the token is no whole character."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatLogprob(TopLogprob):
    """A token of an answer, and the most likely ones at its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """Log-probabilities of an answer."""

    content: list[ChatLogprob]


class TextLogprobs(BaseModel):
    """Log-probabilities of a completion."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class AnswerMessage(BaseModel):
    """What the assistant says; of a stream, the next piece of it."""

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChatChoice(BaseModel):
    """One answer of a chat."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatAnswer(BaseModel):
    """Answer of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class TextChoice(BaseModel):
    """One completion."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: str


class CompletionAnswer(BaseModel):
    """Answer of /v1/completions."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class ModelCard(BaseModel):
    """What /v1/models says of a model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    max_model_len: int


class ModelList(BaseModel):
    """Answer of /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Embedding(BaseModel):
    """A text as a vector of length 1, or that in base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(BaseModel):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """Answer of /v1/embeddings."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage


class TokenizeAnswer(BaseModel):
    """Answer of /tokenize."""

    tokens: list[int]
    count: int
    max_model_len: int


class DetokenizeAnswer(BaseModel):
    """Answer of /detokenize."""

    prompt: str


class Health(BaseModel):
    """Answer of /health."""

    status: Literal["ok"] = "ok"
