"""Which services are asked, and by which name and key: stand-ins, or the real ones with their accounts."""

import pytest

from examples.errors import UsageError
from examples.services import services
from examples.services.services import StandIn
from examples.settings import load

ACCOUNTS = {
    "OPENAI_API_KEY": "key of text",
    "FAL_KEY": "key of picture",
    "AZURE_SPEECH_KEY": "key of sound",
    "AZURE_SPEECH_REGION": "westeurope",
}


def test_a_stand_in_is_all_three_and_sees_no_real_key() -> None:
    standin = StandIn("http://127.0.0.1:1", 20.0, since=0)
    endpoints = standin.text, standin.picture, standin.sound
    assert [endpoint.url for endpoint in endpoints] == [
        "http://127.0.0.1:1/v1",
        "http://127.0.0.1:1/fal",
        "http://127.0.0.1:1",
    ]
    assert {endpoint.speed for endpoint in endpoints} == {20.0}
    assert {endpoint.name for endpoint in endpoints} == {"stand-in at http://127.0.0.1:1, 20x speed"}
    assert not {endpoint.key for endpoint in endpoints} & set(ACCOUNTS.values())


def test_the_real_ones_are_known_by_their_accounts() -> None:
    real = services.real(load(ACCOUNTS), 1)
    assert (real.text.url, real.text.key) == ("https://api.openai.com/v1", "key of text")
    assert (real.picture.url, real.picture.key) == ("https://queue.fal.run", "key of picture")
    assert (real.sound.url, real.sound.key) == ("https://westeurope.tts.speech.microsoft.com", "key of sound")
    assert real.picture.name == "fal-ai/flux/schnell at https://queue.fal.run"
    assert real.sound.name.startswith("zh-CN-XiaoxiaoNeural at https://westeurope.")
    assert "key of" not in f"{real.text!r} {real.picture!r} {real.sound!r} {real!r}"


def test_an_account_that_is_missing_is_named_if_it_is_wanted() -> None:
    config = load({"OPENAI_API_KEY": "key of text", "AZURE_SPEECH_KEY": "key of sound"})
    with pytest.raises(UsageError, match="FAL_KEY, AZURE_SPEECH_REGION"):
        services.real(config, 1)
    assert services.real(config, 1, ["text"]).text.key == "key of text"


def test_the_real_ones_run_at_their_own_speed() -> None:
    with pytest.raises(UsageError, match="--speed is for the stand-in"):
        services.real(load(ACCOUNTS), 2)
