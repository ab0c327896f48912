"""What goes wrong and can be said in one sentence."""


class UsageError(Exception):
    """What the user asked for cannot be done; the message is a sentence that says why, and what to do."""


class TextError(Exception):
    """The text service did not do what it was asked; the message says why."""


class MalformedAnswer(TextError):
    """The answer is not what was asked for. The same again would be no better, fewer words at once may be."""


class CallFailed(TextError):
    """The call failed although others go well: it may be one of its words, so fewer at once may help."""


class Unavailable(TextError):
    """The service is down, or refuses for now. No word is to blame, so asking for fewer does not help."""


class NotAllowed(TextError):
    """The service refuses for good (key, account, address or model): no call will go well."""


class NotSaved(Exception):
    """The database does not take the cards: every further text would be paid for in vain."""
