"""What the language model of the stand-in knows: a mnemonic and an example for a word, and how long it takes.

All of it follows from the seed and the words, so that two runs get the same cards at the same pace.
"""

import random
from collections.abc import Sequence

from pydantic import BaseModel, Field

from examples.standin.latency import around

AT_MOST = 2  # definitions in a mnemonic

MNEMONICS = (
    "Picture {gloss} while you say {sound} aloud: the look of {word} brings it back.",
    "Tell a short story about {gloss}, and let {word} ({sound}) have the last word in it.",
    "Trace {word} in the air, say {sound}, and think of {gloss}.",
)
EXAMPLES = (
    ("今天我们学“{}”。", "Jīntiān wǒmen xué “{}”.", "Today we are learning “{}”."),
    ("老师写了“{}”。", "Lǎoshī xiě le “{}”.", "The teacher wrote “{}”."),
    ("请再读一遍“{}”。", "Qǐng zài dú yí biàn “{}”.", "Please read “{}” once more."),
    ("“{}”是什么意思？", "“{}” shì shénme yìsi?", "What does “{}” mean?"),
    ("我会写“{}”。", "Wǒ huì xiě “{}”.", "I can write “{}”."),
)


class Word(BaseModel):
    """What is known of a word when the model is asked about it."""

    word: str = Field(min_length=1)
    pinyin: str = ""
    definitions: list[str] = []


class Words(BaseModel):
    """The question: the JSON of the user's message."""

    words: list[Word] = Field(min_length=1)


class Card(BaseModel):
    """What the model writes for a word."""

    word: str
    mnemonic: str
    example: str
    example_pinyin: str
    example_translation: str


class Cards(BaseModel):
    """The answer: cards in the order of the words."""

    cards: list[Card]


def write_cards(words: Sequence[Word], seed: int) -> Cards:
    """A card for each word."""
    return Cards(cards=[write_card(word, random.Random(f"{seed} {word.word}")) for word in words])


def write_card(word: Word, dice: random.Random) -> Card:
    sound = word.pinyin or word.word
    sentence, reading, translation = dice.choice(EXAMPLES)
    return Card(
        word=word.word,
        mnemonic=dice.choice(MNEMONICS).format(gloss=gloss(word), sound=sound, word=word.word),
        example=sentence.format(word.word),
        example_pinyin=reading.format(sound),
        example_translation=translation.format(word.word),
    )


def gloss(word: Word) -> str:
    """The first definitions in quotes. Measure words ("CL:個|个[ge4]") say nothing about the meaning."""
    meanings = [text for text in word.definitions if not text.startswith("CL:")][:AT_MOST]
    return " and ".join(f"“{text}”" for text in meanings) or "what it means"


def latency(words: Sequence[Word], dice: random.Random) -> float:
    """Service seconds that an answer takes: 4 for one word and 6 for ten in the middle, with a long tail."""
    return around(4 + 2 * (len(words) - 1) / 9, dice)
