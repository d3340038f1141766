"""The model: it learns what follows what, from real text, and writes without end."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from live_stream.corpus import articles
from live_stream.language_model import LanguageModel, train, trained_model


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def text_of(model: LanguageModel, prompt: str, pieces: int, seed: int = 1) -> str:
    return "".join(islice(model.pieces(prompt, random.Random(seed)), pieces))


def test_it_goes_on_from_the_prompt_as_it_has_learnt() -> None:
    model = train(["One two three four."])
    assert text_of(model, "One two", 3) == " three four."


def test_the_same_chance_writes_the_same_text() -> None:
    model = trained_model()
    assert text_of(model, "The class", 200) == text_of(model, "The class", 200)
    assert text_of(model, "The class", 200) != text_of(model, "The class", 200, seed=2)


@pytest.mark.parametrize("prompt", ["", "zzz qqq", "One", "four."])
def test_a_prompt_that_leads_nowhere_begins_an_article(prompt: str) -> None:
    model = train(["One two three four."])
    assert "One two three four." in text_of(model, prompt, 30)


def test_it_has_learnt_from_the_language_reference() -> None:
    texts = list(articles())
    assert len(texts) > 50
    assert not any("=====" in text for text in texts)
    assert len(text_of(trained_model(), "The class", 2_000)) > 5_000


async def test_what_ends_the_text_may_be_in_two_pieces() -> None:
    model = train(["One two three four."])
    written = model.write("One two", max_pieces=100, stop="three four", piece_seconds=0, chance=random.Random(1))
    assert "".join([piece async for piece in written]) == " three four"
