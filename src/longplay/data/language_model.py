"""Asking a language model, through any endpoint that speaks the OpenAI chat protocol: retries, cache, cost.

An answer is kept on disk under the hash of what was asked, so that a run which was stopped, or is repeated, pays for
nothing twice. Too many requests and failing servers are waited for, longer each time; wrong keys and models are not.
"""

import hashlib
import json
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longplay.errors import LongplayError, UserError
from longplay.files import write_text

RETRIES = 6
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds
TIMEOUT = 120.0


class EndpointError(LongplayError):
    """A language model cannot be reached, or goes on failing."""


@dataclass
class Usage:
    """What a run has used: answers from the cache cost nothing."""

    requests: int = 0
    cached: int = 0
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def cost(self, input_price: float, output_price: float) -> float:
        """In the currency of the prices, which are for a million tokens."""
        return (self.input_tokens * input_price + self.output_tokens * output_price) / 1e6


class LanguageModel:
    """A model behind an endpoint. Safe to call from several threads.

    Args:
        endpoint: base address, e.g. `http://localhost:8000/v1`; None: that of the client's environment.
        model: its name there.
        cache: folder of the answers.
        key: None: that of the client's environment (`OPENAI_API_KEY`); many local servers want none.
        first_wait: seconds before the first retry.

    Raises:
        UserError: the client is not installed, or has neither key nor endpoint.
    """

    def __init__(
        self, endpoint: str | None, model: str, cache: Path, key: str | None = None, first_wait: float = FIRST_WAIT
    ) -> None:
        try:
            import openai
        except ImportError:
            raise UserError(
                "captions by a language model need the client: `pip install 'longplay[captions]'`"
            ) from None
        self._errors = openai
        try:
            self._client = openai.OpenAI(
                base_url=endpoint, api_key=key or ("none" if endpoint else None), max_retries=0, timeout=TIMEOUT
            )
        except openai.OpenAIError as error:
            raise UserError(f"no language model: {error}; give --endpoint, or set OPENAI_API_KEY") from None
        self.endpoint, self.model, self.cache, self.first_wait = endpoint, model, cache, first_wait
        self.usage = Usage()
        self._lock = threading.Lock()

    def ask(self, system: str, question: str, attempt: int = 0) -> str:
        """The answer to a question; the same question again comes from the cache.

        Args:
            attempt: another number, another answer: for questions whose answer was of no use.

        Raises:
            EndpointError: the endpoint goes on failing, or refuses.
        """
        request = {
            "model": self.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
        }
        path = self.cache / f"{_digest([self.endpoint, request, attempt])}.json"
        if path.is_file():
            self._count(cached=1)
            return str(json.loads(path.read_text(encoding="utf-8"))["answer"])
        response = self._request(request)
        answer = (response.choices[0].message.content if response.choices else None) or ""
        used = response.usage
        if used is not None:
            self._count(input_tokens=used.prompt_tokens, output_tokens=used.completion_tokens)
        write_text(
            path, json.dumps({"request": request, "attempt": attempt, "answer": answer}, ensure_ascii=False) + "\n"
        )
        return answer

    def _request(self, request: Mapping[str, Any]) -> Any:
        openai = self._errors
        wait = self.first_wait
        for tried in range(RETRIES + 1):
            try:
                self._count(requests=1)
                return self._client.chat.completions.create(**request)
            except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError) as error:
                if tried == RETRIES:
                    raise EndpointError(
                        f"{self._name()}: failed {RETRIES + 1} times, at last: {_line(error)}"
                    ) from None
                pause = max(_retry_after(error), wait * random.uniform(0.75, 1.25))
                wait = min(2 * wait, LONGEST_WAIT)
                self._count(retries=1)
                time.sleep(pause)
            except openai.APIError as error:
                raise EndpointError(
                    f"{self._name()}: refuses the request: {_line(error)}; check model and key"
                ) from None
        raise AssertionError("unreachable")

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, amount in more.items():
                setattr(self.usage, name, getattr(self.usage, name) + amount)

    def _name(self) -> str:
        return f"{self.model} at {self.endpoint or 'the default endpoint'}"


def _retry_after(error: Exception) -> float:
    """Seconds that the server asks to wait for, 0 if it does not say."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        return min(float(headers.get("retry-after", 0)), LONGEST_WAIT)
    except ValueError:
        return 0.0


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
