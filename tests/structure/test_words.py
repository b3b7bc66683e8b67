"""Prose and names use the field's words: the list finds what is planted, and nothing in the project."""

from __future__ import annotations

import pytest

from tests.support.words import EXCEPTIONS, WORDS, find_words, our_files, words_in


def test_the_project_uses_none_of_the_words() -> None:
    assert [str(found) for found in find_words(our_files())] == []


def test_every_exception_is_needed_and_has_a_reason() -> None:
    files = our_files()
    for (word, where), reason in EXCEPTIONS.items():
        texts = [file for file in files if file == where or (where.endswith("/") and file.startswith(where))]
        assert reason
        assert any(found.word == word for found in find_words(texts, but_exceptions=False)), (word, where)


PLANTED = {
    "headless who": '"""Who votes twice changes their vote."""',
    "whoever": "# whoever comes first",
    "anew": "the stage opens anew",
    "in the same breath": "written in the same breath",
    "by itself": "it ends by itself",
    "stands": "what stands in the log",
    "lies": "where the file lies",
    "she": "until she votes",
    "told": "def test_the_loser_is_told() -> None:",
    "tell": "    def tell(self) -> None:",
    "decline": "the request was declined",
    "ask for changes": "somebody asked for changes",
    "hand over": "may_hand_over = True",
    "take back": "to take the vote back",
    "stand-in": "her stand-in votes",
    "what follows": "what follows a decision",
    "who asked": "who asked may withdraw",
    "electorate": "the electorate of a stage",
    "pace": "the pace of deliveries",
    "coming due": "timers coming due",
    "sentences": "a table of phrases",
    "story": "the story of a run",
    "news": "told the news",
    "draft": "a draft of the batch",
    "pieces": "in two pieces",
}


@pytest.mark.parametrize("word", WORDS)
def test_each_word_is_found_where_it_is_planted(word: str) -> None:
    assert word in [found.word for found in words_in("planted.py", PLANTED[word])]


@pytest.mark.parametrize(
    "line",
    [
        "Who decides?",
        "a person who votes",
        "to tell them apart",
        "take_back, taken_back and asked are words of the contract",
        "FOO stands for bar",
    ],
)
def test_right_english_and_the_contract_are_left_alone(line: str) -> None:
    assert [str(found) for found in words_in("planted.py", line)] == []
