"""A very small language model: which piece of text tends to follow which two others."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import cache
from itertools import pairwise

import anyio

from .corpus import articles

__all__ = ["LanguageModel", "trained_model"]

_PIECE = re.compile(r"\n\n| ?\w+| ?[^\w\s]")
"""A word or a sign with the space before it, or the end of a paragraph."""


class LanguageModel:
    """A Markov chain over pieces of text.

    Concurrency:
        Training is plain computing, for a thread of its own. A trained model only reads.
    """

    def __init__(self) -> None:
        self._followers: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self._starts: list[tuple[str, str]] = []

    def learn(self, text: str) -> None:
        """Remember what follows what in one more text."""
        pieces = _PIECE.findall(text)
        for start, follower in zip(pairwise(pieces), pieces[2:], strict=False):
            self._followers[start].append(follower)
        if len(pieces) > 2:
            self._starts.append((pieces[0], pieces[1]))

    def pieces(self, prompt: str, chance: random.Random) -> Iterator[str]:
        """Pieces that go on from the prompt, without end. A prompt that nothing is known about starts an article."""
        state = self._state_after(prompt)
        while True:
            followers = self._followers.get(state) if state is not None else None
            if followers is None:  # an article's end, or nothing to go on from: begin another article
                state = chance.choice(self._starts)
                yield from ("\n\n", state[0].lstrip(), state[1])
            else:
                piece = chance.choice(followers)
                state = (state[1], piece) if state is not None else None
                yield piece

    async def write(
        self, prompt: str, *, max_pieces: int, stop: str | None, piece_seconds: float, chance: random.Random | None = None
    ) -> AsyncIterator[str]:
        """Pieces as they come from a model somewhere else: one after the other, each with some latency.

        Args:
            max_pieces: Where to end at the latest.
            stop: Ends the text as soon as it stands in it.
            piece_seconds: How long each piece takes on average.
        """
        chance = chance or random.Random()
        tail = ""
        for _, piece in zip(range(max_pieces), self.pieces(prompt, chance), strict=False):
            await anyio.sleep(chance.uniform(0.5, 1.5) * piece_seconds)
            yield piece
            if stop:
                tail = (tail + piece)[-len(stop) - len(piece) :]
                if stop in tail:
                    return

    def _state_after(self, prompt: str) -> tuple[str, str] | None:
        """The prompt's last two pieces, if they were ever seen together; else two that begin with its last one."""
        last = _PIECE.findall(prompt)[-2:]
        if len(last) == 2 and (last[0], last[1]) in self._followers:
            return (last[0], last[1])
        known = [state for state in self._followers if last and state[0].strip() == last[-1].strip()]
        return known[0] if known else None


def train(texts: Iterable[str]) -> LanguageModel:
    """A model that has learnt from some texts."""
    model = LanguageModel()
    for text in texts:
        model.learn(text)
    return model


@cache
def trained_model() -> LanguageModel:
    """The application's model. The first call computes for a moment: make it in a thread."""
    return train(articles())
