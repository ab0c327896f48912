"""What goes wrong and can be said in one sentence."""


class UsageError(Exception):
    """What the user asked for cannot be done; the message is a sentence that says why, and what to do."""


class ServiceError(Exception):
    """A service did not do what it was asked; the message says why."""


class MalformedAnswer(ServiceError):
    """The answer is not what was asked for. For a text, fewer words at once may be better."""


class CallFailed(ServiceError):
    """The call failed although others go well: it may be one of its words, so fewer at once may help."""


class Unavailable(ServiceError):
    """The service is down, or refuses for now. No word is to blame, so asking for fewer does not help."""


class NotAllowed(ServiceError):
    """The service refuses for good (key, account, address or model): no call will go well."""


class NotSaved(Exception):
    """The database does not take the cards: every further text would be paid for in vain.

    Args:
        why: a sentence.
        passing: whether the database may do so later.
    """

    def __init__(self, why: str, passing: bool) -> None:
        super().__init__(why)
        self.passing = passing


class UnknownWord(Exception):
    """The dictionary does not have the word, so there is no card of it; the message says so."""


class Unfinished(Exception):
    """A job could not do all that it was asked; the message says what is missing.

    Args:
        why: a sentence.
        passing: whether that is no fault of the job, and over after a while: it may be sent again as it is.
        result: what it did.
    """

    def __init__(self, why: str, passing: bool, result: object = None) -> None:
        super().__init__(why)
        self.passing = passing
        self.result = result


class MediaError(Exception):
    """The media store did not do what it was asked; the message says why."""


class MediaMissing(MediaError):
    """There is no such key."""


class MediaAway(MediaError):
    """The store does not answer, or not in time. No content is to blame, and it may be over after a while."""


class MediaRefused(MediaError):
    """The store refuses for good (keys, rights, bucket): nothing will be written."""


class Lapsed(Exception):
    """The claim to some words is in doubt: claim them anew, and look what is done."""
