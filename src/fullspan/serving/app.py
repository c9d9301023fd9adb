"""The routes."""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException

from fullspan._version import __version__
from fullspan.core.errors import FullspanError
from fullspan.decoding.language_model import LanguageModel
from fullspan.serving.answering import EventStream, collect, unless_gone
from fullspan.serving.choices import Choice
from fullspan.serving.errors import ApiError, api_error, validation_error
from fullspan.serving.guard import Guard, Record
from fullspan.serving.metrics import METRICS_TYPE
from fullspan.serving.prompts import chat_prompt, completion_prompts, options_of, text_or_tokens
from fullspan.serving.schemas import (
    ChatAnswer,
    ChatBody,
    CompletionAnswer,
    CompletionBody,
    DetokenizeAnswer,
    DetokenizeBody,
    Embedding,
    EmbeddingsAnswer,
    EmbeddingsBody,
    EmbeddingsUsage,
    ErrorAnswer,
    Health,
    ModelCard,
    ModelList,
    SamplingBody,
    TokenizeAnswer,
    TokenizeBody,
)
from fullspan.serving.service import Service
from fullspan.serving.settings import ApiKeys, ServerSettings
from fullspan.serving.tools import ToolPlan, tool_plan

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in {
        400: "something in the request is wrong; the error names it",
        401: "the API key is missing or wrong",
        403: "the request was not made to this machine's own name",
        404: "there is no such model",
        408: "the request came too slowly",
        413: "the request is too large",
        429: "the queue is full; Retry-After says when to try again",
        500: "the server failed",
        503: "the server is about to end",
        504: "the request took too long",
    }.items()
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}


def create_app(model: LanguageModel, settings: ServerSettings, keys: ApiKeys) -> FastAPI:
    """The ASGI application of a model.

    Its scheduler runs until the application's lifespan ends, and is then at `app.state.service`.

    Raises
    ------
    ConfigError
        If torch computes the model.
    """
    service = Service(model, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.scheduler.close, 0.0)  # the requests have ended before

    app = FastAPI(title="fullspan", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    app.add_middleware(Guard, settings=settings, keys=keys, metrics=service.metrics)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ApiError, _on_error)
    app.add_exception_handler(FullspanError, _on_error)
    app.include_router(_router(service))
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        description = describe()
        for path in description["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)  # FastAPI's own; ours are 400
        if keys:
            schemes = {"key": {"type": "http", "scheme": "bearer"}}
            description["components"]["securitySchemes"] = schemes
            description["security"] = [{"key": []}]
            description["paths"]["/health"]["get"]["security"] = []
        return description

    app.openapi = openapi  # type: ignore[method-assign]
    return app


async def _on_invalid(http: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return validation_error(error.errors()).response()


async def _on_http(http: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:  # FastAPI's, of a body that is not UTF-8 or nested too deeply
        return ApiError(400, "the body cannot be read as JSON", code="invalid_json").response()
    return ApiError(error.status_code, error.detail, headers=error.headers).response()


async def _on_error(http: Request, error: Exception) -> Response:
    return api_error(error).response()


def _router(service: Service) -> APIRouter:
    router = APIRouter(responses=_ERRORS)
    model = service.model

    @router.get("/health")
    async def health() -> Health:
        """Whether the server is there; needs no key."""
        return Health()

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return PlainTextResponse(service.metrics.text(), media_type=METRICS_TYPE)

    @router.get("/v1/models")
    async def models() -> ModelList:
        """The one model that is served."""
        return ModelList(data=[_card(service)])

    @router.get("/v1/models/{name:path}")
    async def one_model(name: str) -> ModelCard:
        """The model, if it has this name."""
        service.check_model(name)
        return _card(service)

    @router.post("/v1/completions", response_model=CompletionAnswer, responses=_STREAM)
    async def completions(body: CompletionBody, http: Request) -> Any:
        """Go on from prompts."""
        service.check_model(body.model)
        _check_stream_options(body)
        prompts = await asyncio.to_thread(completion_prompts, model, body)
        n = body.n or 1
        service.check_prompts(prompts, n, "prompt")
        options = options_of(body, service.max_tokens(body.max_tokens, 16, "max_tokens"))
        run = await service.begin(prompts, options, n, body.logprobs)
        choices = [Choice(index, model.end_ids, body.logprobs) for index in range(len(run.answers))]
        head, record = _head(service, "cmpl", "text_completion"), http.state.record
        if body.stream:
            return EventStream(
                run, choices, head, Choice.completion_piece, with_usage=_with_usage(body), record=record
            )

        async def whole() -> CompletionAnswer:
            await collect(run, choices, record)
            return CompletionAnswer(
                **head, choices=[choice.completion() for choice in choices], usage=run.usage
            )

        return await unless_gone(http, run, whole())

    @router.post("/v1/chat/completions", response_model=ChatAnswer, responses=_STREAM)
    async def chat_completions(body: ChatBody, http: Request) -> Any:
        """Answer a conversation."""
        service.check_model(body.model)
        _check_stream_options(body)
        n_logprobs = _chat_logprobs(body)
        plan = tool_plan(body, model.tokenizer.chat_template or "")
        prompt = await asyncio.to_thread(chat_prompt, model, body.messages, plan)
        n = body.n or 1
        service.check_prompts([prompt], n, "messages")
        options = options_of(body, _chat_tokens(service, body), plan)
        run = await service.begin([prompt], options, n, n_logprobs)
        choices = [Choice(index, model.end_ids, n_logprobs) for index in range(n)]
        record: Record = http.state.record
        if body.stream:
            return EventStream(
                run,
                choices,
                _head(service, "chatcmpl", "chat.completion.chunk"),
                lambda choice: choice.chat_piece(plan),
                with_usage=_with_usage(body),
                record=record,
                opening=_opening,
            )

        async def whole() -> ChatAnswer:
            await collect(run, choices, record)
            head = _head(service, "chatcmpl", "chat.completion")
            return ChatAnswer(**head, choices=[choice.chat(plan) for choice in choices], usage=run.usage)

        return await unless_gone(http, run, whole())

    @router.post("/v1/embeddings")
    async def embeddings(body: EmbeddingsBody) -> EmbeddingsAnswer:
        """Texts as vectors: means of the model's hidden states."""
        service.check_model(body.model)
        if not service.settings.embeddings:
            raise ApiError(
                400,
                "this server gives no embeddings: the CPU engine has logits only, and torch's copy of the "
                "model is loaded with `fullspan serve --embeddings`",
                code="embeddings_off",
            )
        texts = await asyncio.to_thread(text_or_tokens, model, body.input, "input")
        service.check_prompts(texts, 1, "input")
        vectors = await service.embed(texts)
        coded = [
            base64.b64encode(vector.astype("<f4").tobytes()).decode()
            if body.encoding_format == "base64"
            else vector.tolist()
            for vector in vectors
        ]
        n_tokens = sum(map(len, texts))
        return EmbeddingsAnswer(
            data=[Embedding(index=index, embedding=each) for index, each in enumerate(coded)],
            model=service.name,
            usage=EmbeddingsUsage(prompt_tokens=n_tokens, total_tokens=n_tokens),
        )

    @router.post("/tokenize")
    async def tokenize(body: TokenizeBody) -> TokenizeAnswer:
        """Tokens of a text, or of a conversation up to where the answer begins."""
        if (body.prompt is None) == (body.messages is None):
            raise ApiError(400, "give either prompt or messages", param="prompt", code="invalid_value")
        if body.messages is not None:
            ids = await asyncio.to_thread(chat_prompt, model, body.messages, ToolPlan())
        else:
            encode = model.tokenizer.encode
            special = body.add_special_tokens
            ids = await asyncio.to_thread(encode, body.prompt or "", add_special_tokens=special)
        return TokenizeAnswer(tokens=ids, count=len(ids), max_model_len=model.config.max_positions)

    @router.post("/detokenize")
    async def detokenize(body: DetokenizeBody) -> DetokenizeAnswer:
        """Text of tokens, special ones included."""
        decode = model.tokenizer.decode
        return DetokenizeAnswer(
            prompt=await asyncio.to_thread(decode, body.tokens, skip_special_tokens=False)
        )

    return router


def _card(service: Service) -> ModelCard:
    context = service.model.config.max_positions
    return ModelCard(id=service.name, created=service.created, owned_by="fullspan", max_model_len=context)


def _head(service: Service, prefix: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": service.name,
    }


def _with_usage(body: SamplingBody) -> bool:
    return body.stream_options is not None and bool(body.stream_options.include_usage)


def _check_stream_options(body: SamplingBody) -> None:
    if body.stream_options is not None and not body.stream:
        message = "stream_options need stream"
        raise ApiError(400, message, param="stream_options", code="invalid_value")


def _opening(choice: Choice) -> dict[str, Any]:
    delta = {"role": "assistant", "content": ""}
    return {"index": choice.index, "delta": delta, "finish_reason": None, "logprobs": None}


def _chat_tokens(service: Service, body: ChatBody) -> int:
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        message = "max_tokens and max_completion_tokens are given; give one of them"
        raise ApiError(400, message, param="max_tokens", code="invalid_value")
    name = "max_tokens" if body.max_tokens is not None else "max_completion_tokens"
    asked = body.max_tokens if body.max_tokens is not None else body.max_completion_tokens
    return service.max_tokens(asked, service.settings.max_answer_tokens, name)


def _chat_logprobs(body: ChatBody) -> int | None:
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs", param="top_logprobs", code="invalid_value")
    return (body.top_logprobs or 0) if body.logprobs else None
