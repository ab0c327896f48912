"""A word on its way to a card: what the model and the picture are told of it, and what is kept. Pure."""

from attrs import frozen

from examples.database import Card
from examples.database.dictionary import Entry
from examples.language import prompt
from examples.language.prompt import Question, Text

MOST_DEFINITIONS = 8  # that the model is told of a word: the usual meanings; more cost tokens and help little


@frozen
class Word:
    """A word with all its readings."""

    word: str
    entries: tuple[Entry, ...]

    @property
    def pinyin(self) -> str:
        """Its readings, each sound once, though a name is written with a capital."""
        sounds: dict[str, str] = {}
        for entry in self.entries:
            sounds.setdefault(entry.pinyin.lower(), entry.pinyin)
        return ", ".join(sounds.values())

    @property
    def definitions(self) -> dict[str, list[str]]:
        """What it means, by reading."""
        by_reading: dict[str, list[str]] = {}
        for entry in self.entries:
            by_reading.setdefault(entry.pinyin, []).extend(entry.definitions)
        return by_reading


def question(word: Word) -> Question:
    """What the model is told about a word."""
    definitions = [definition for entry in word.entries for definition in entry.definitions]
    return Question(word=word.word, pinyin=word.pinyin, definitions=definitions[:MOST_DEFINITIONS])


def card(word: Word, text: Text) -> Card:
    """The card of a word, without its media."""
    return Card(
        word=word.word,
        pinyin=word.pinyin,
        definitions=word.definitions,
        mnemonic=text.mnemonic,
        example=text.example,
        example_pinyin=text.example_pinyin,
        example_translation=text.example_translation,
    )


def picture(card: Card) -> str:
    """What the picture of a card is told."""
    definitions = [meaning for meanings in card.definitions.values() for meaning in meanings]
    question = Question(word=card.word, pinyin=card.pinyin, definitions=definitions)
    text = Text(
        word=card.word,
        mnemonic=card.mnemonic,
        example=card.example,
        example_pinyin=card.example_pinyin,
        example_translation=card.example_translation,
    )
    return prompt.picture(question, text)
