"""Answers as they grow, in the forms that chats, completions and their streams have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fullspan.decoding.logprobs import TokenLogprob, TopToken
from fullspan.decoding.requests import Update
from fullspan.serving.schemas import (
    AnswerMessage,
    ChatChoice,
    ChatLogprob,
    ChatLogprobs,
    TextChoice,
    TextLogprobs,
    TopLogprob,
)
from fullspan.serving.tools import ToolPlan


@dataclass
class Choice:
    """One answer.

    Attributes
    ----------
    index : int
    end_ids : frozenset of int
        Tokens that end an answer; their log-probabilities are not shown, as they have no text.
    n_logprobs : int or None
        How many alternatives are shown; None shows nothing.
    text : str
    """

    index: int
    end_ids: frozenset[int]
    n_logprobs: int | None = None
    text: str = ""
    finish_reason: str | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    _n_shown: int = 0  # characters that a stream has sent
    _n_shown_logprobs: int = 0
    _n_offset: int = 0

    def take(self, update: Update) -> None:
        """Grow by one token."""
        self.text += update.text
        self.finish_reason = update.finish_reason
        if update.logprob is not None and update.logprob.token_id not in self.end_ids:
            self.logprobs.append(update.logprob)

    def chat(self, plan: ToolPlan) -> ChatChoice:
        """The whole answer of a chat."""
        call = plan.call_of(self.text)
        message = AnswerMessage(content=self.text) if call is None else AnswerMessage(tool_calls=[call])
        return ChatChoice(
            index=self.index,
            message=message,
            logprobs=None if self.n_logprobs is None else _chat_logprobs(self.logprobs),
            finish_reason="tool_calls" if call is not None else self.finish_reason or "length",
        )

    def completion(self) -> TextChoice:
        """The whole answer of a completion."""
        return TextChoice(
            index=self.index,
            text=self.text,
            logprobs=None if self.n_logprobs is None else _text_logprobs(self.logprobs, 0),
            finish_reason=self.finish_reason or "length",
        )

    def chat_piece(self, plan: ToolPlan) -> dict[str, Any] | None:
        """What a stream says now of a chat's answer; None if there is nothing new."""
        delta: dict[str, Any] = {}
        finish_reason, held = self.finish_reason, plan.may_be_call(self.text)
        call = plan.call_of(self.text) if finish_reason is not None else None
        if call is not None:
            delta["tool_calls"] = [{"index": 0, **call}]
            finish_reason = "tool_calls"
        elif (text := self._new_text()) and (finish_reason is not None or not held):
            delta["content"] = text
            self._n_shown = len(self.text)
        if not delta and finish_reason is None:
            return None
        piece = {"index": self.index, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        if self.n_logprobs is not None:
            piece["logprobs"] = _chat_logprobs(self._new_logprobs()).model_dump()
        return piece

    def completion_piece(self) -> dict[str, Any] | None:
        """What a stream says now of a completion."""
        text = self._new_text()
        if not text and self.finish_reason is None:
            return None
        self._n_shown = len(self.text)
        piece = {"index": self.index, "text": text, "finish_reason": self.finish_reason, "logprobs": None}
        if self.n_logprobs is not None:
            new = self._new_logprobs()
            piece["logprobs"] = _text_logprobs(new, self._n_offset).model_dump()
            self._n_offset += sum(len(each.text) for each in new)
        return piece

    def _new_text(self) -> str:
        return self.text[self._n_shown :]

    def _new_logprobs(self) -> list[TokenLogprob]:
        new = self.logprobs[self._n_shown_logprobs :]
        self._n_shown_logprobs = len(self.logprobs)
        return new


def _chat_logprobs(found: Sequence[TokenLogprob]) -> ChatLogprobs:
    return ChatLogprobs(
        content=[
            ChatLogprob(**_token(each), top_logprobs=[TopLogprob(**_token(top)) for top in each.top])
            for each in found
        ]
    )


def _token(found: TopToken) -> dict[str, Any]:
    whole = "\ufffd" not in found.text
    return {
        "token": found.text,
        "logprob": max(found.logprob, -9999.0),  # as OpenAI's; minus infinity is no JSON
        "bytes": list(found.text.encode()) if whole else None,
    }


def _text_logprobs(found: Sequence[TokenLogprob], offset: int) -> TextLogprobs:
    offsets = []
    for each in found:
        offsets.append(offset)
        offset += len(each.text)
    return TextLogprobs(
        tokens=[each.text for each in found],
        token_logprobs=[max(each.logprob, -9999.0) for each in found],
        top_logprobs=[{top.text: max(top.logprob, -9999.0) for top in each.top} for each in found],
        text_offset=offsets,
    )
