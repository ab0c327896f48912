"""What the language model is asked, what it may answer, and what the picture is told. Pure."""

from collections.abc import Sequence
from typing import Final

from openai.types.chat import ChatCompletionMessageParam, ParsedChatCompletion
from pydantic import BaseModel

from examples.errors import MalformedAnswer

INSTRUCTIONS: Final = """\
You write flashcards for learners of Chinese. For each word that you are given write:
- mnemonic: one or two sentences that tie the look and the sound of the word to its meaning;
- example: a short, natural sentence in Chinese that uses the word in its most usual sense;
- example_pinyin: the pinyin of that sentence, with tone marks;
- example_translation: its translation.
Write exactly one card for each word, in the same order, and repeat the word as it was given."""

PICTURE: Final = """\
A simple, friendly illustration for a flashcard, in flat colours on a light background.
It shows the meaning of the Chinese word {word}: {meaning}.
It may take up this idea: {mnemonic}
There is no text in it: no letters, no Chinese characters, no numbers."""
MOST_MEANINGS = 2  # that a picture can show


class Question(BaseModel):
    """What the model is told about a word."""

    word: str
    pinyin: str
    definitions: list[str]


class Questions(BaseModel):
    """What it is asked in one call."""

    words: list[Question]


class Text(BaseModel):
    """What it writes about a word."""

    word: str
    mnemonic: str
    example: str
    example_pinyin: str
    example_translation: str


class Answer(BaseModel):
    """What it answers to one call."""

    cards: list[Text]


def messages(questions: Sequence[Question]) -> list[ChatCompletionMessageParam]:
    """What is sent: the instructions, and the words as JSON."""
    words = Questions(words=list(questions)).model_dump_json()
    return [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": words}]


def parsed(completion: ParsedChatCompletion[Answer]) -> Answer:
    """The answer in a completion."""
    message = completion.choices[0].message if completion.choices else None
    if message is None or message.parsed is None:
        refusal = message.refusal if message else None
        raise MalformedAnswer(f"the model did not answer{f': {refusal}' if refusal else ''}")
    return message.parsed


def in_order(questions: Sequence[Question], answer: Answer) -> list[Text]:
    """The texts in the order of the questions; there must be exactly one for each."""
    texts = {text.word: text for text in answer.cards}
    asked = [question.word for question in questions]
    if len(answer.cards) != len(asked) or texts.keys() != set(asked):
        raise MalformedAnswer(
            f"asked for {''.join(asked)}, got {''.join(text.word for text in answer.cards)}"
        )
    return [texts[word] for word in asked]


def picture(question: Question, text: Text) -> str:
    """What the picture of a word is told. Measure words ("CL:個|个[ge4]") say nothing about the meaning."""
    meanings = [meaning for meaning in question.definitions if not meaning.startswith("CL:")]
    shown = " or ".join(meanings[:MOST_MEANINGS]) or question.word
    return PICTURE.format(word=question.word, meaning=shown, mnemonic=text.mnemonic)
