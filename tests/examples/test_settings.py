"""Settings are whole or refused, with the name, the value, what is allowed and where it came from."""

from pathlib import Path

import pytest

from examples import settings
from examples.errors import UsageError
from examples.settings import load


def test_the_numbers_of_the_default_profile() -> None:
    config = load({})
    assert config.environment == "development"
    assert (config.text.rate, config.text.burst, config.text.jitter) == (2, 5, 0.05)
    assert (config.bulk_import.batch_size, config.bulk_import.concurrency) == (10, 14)
    assert (config.dictionary.batch_size, config.dictionary.cache_ttl) == (50, 300)
    assert (config.picture.rate, config.picture.burst, config.picture.concurrency) == (1, 3, 40)
    assert (config.sound.rate, config.sound.burst) == (5, 10)


def test_a_profile_changes_what_it_names() -> None:
    config = load({"ENVIRONMENT": "production"})
    assert (config.environment, config.text.timeout, config.text.rate) == ("production", 120, 2)


def test_the_environment_has_the_last_word() -> None:
    config = load(
        {"ENVIRONMENT": "production", "FLASHCARDS_TEXT_TIMEOUT": "7.5", "OPENAI_BASE_URL": "http://x/v1"}
    )
    assert (config.text.timeout, config.text.base_url) == (7.5, "http://x/v1")


@pytest.mark.parametrize(("factor", "scaled"), [("1", 14), ("2", 28), ("0.5", 7), ("0.01", 1)])
def test_the_scale_factor(factor: str, scaled: int) -> None:
    assert load({"WORKER_SCALE_FACTOR": factor}).scaled(14) == scaled


def test_the_keys_go_by_their_usual_names_and_are_not_shown() -> None:
    config = load(
        {
            "OPENAI_API_KEY": "sk-secret",
            "FAL_KEY": "fal-secret",
            "AZURE_SPEECH_KEY": "azure-secret",
            "AZURE_SPEECH_REGION": "westeurope",
        }
    )
    keys = config.text.api_key, config.picture.api_key, config.sound.api_key
    assert keys == ("sk-secret", "fal-secret", "azure-secret")
    assert config.sound.region == "westeurope"
    assert not [key for key in keys if key in repr(config)]


def test_the_media_store_is_a_folder_unless_a_bucket_is_named() -> None:
    config = load({})
    assert (config.database.url, config.media.folder, config.media.bucket) == ("flashcards.db", "media", "")
    usual = {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "very-secret", "AWS_REGION": "eu-west-1"}
    media = load(
        {"FLASHCARDS_MEDIA_BUCKET": "my.cards", "AWS_ENDPOINT_URL": "http://s3.local:9000", **usual}
    ).media
    assert (media.bucket, media.region, media.endpoint) == ("my.cards", "eu-west-1", "http://s3.local:9000")
    assert (media.access_key_id, media.secret_access_key) == ("an-id", "very-secret")
    assert "an-id" not in repr(media)
    assert "very-secret" not in repr(media)


def test_a_password_in_the_url_of_the_database_is_not_shown() -> None:
    config = load({"FLASHCARDS_DATABASE_URL": "postgresql://user:very-secret@host/cards"})
    assert config.database.url == "postgresql://user:very-secret@host/cards"
    assert "very-secret" not in repr(config)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("FLASHCARDS_TEXT_RATE", "0", r"text\.rate.*a number from 0\.001 to 10,000 \(calls/s\)"),
        ("FLASHCARDS_TEXT_RATE", "nan", "a number from"),
        ("FLASHCARDS_TEXT_RATE", "inf", "a number from"),
        ("FLASHCARDS_TEXT_RATE", "fast", "a number from"),
        ("FLASHCARDS_TEXT_BURST", "2.5", r"text\.burst.*a whole number from 1 to 10,000"),
        ("FLASHCARDS_BULK_IMPORT_CONCURRENCY", "-3", r"a whole number from 1 to 1,000 \(calls at once\)"),
        ("FLASHCARDS_PICTURE_RATE", "0", r"picture\.rate.*a number from 0\.001 to 10,000 \(calls/s\)"),
        ("FLASHCARDS_PICTURE_CONCURRENCY", "0", r"picture\.concurrency.*\(pictures at once\)"),
        ("FLASHCARDS_PICTURE_SIZE", "huge", r"picture\.size"),
        ("FLASHCARDS_SOUND_BURST", "0", r"sound\.burst"),
        ("AZURE_SPEECH_REGION", "West Europe", r"sound\.region.*must be like westeurope"),
        ("FLASHCARDS_SOUND_VOICE", "<voice>", r"sound\.voice.*must be like zh-CN-XiaoxiaoNeural"),
        ("FLASHCARDS_SOUND_OUTPUT_FORMAT", "mp3", r"must be like audio-24khz-48kbitrate-mono-mp3"),
        ("WORKER_SCALE_FACTOR", "1000", r"worker_scale_factor.*a number from 0\.01 to 100"),
        ("FLASHCARDS_DATABASE_URL", "", r"database\.url.*must be like flashcards\.db or"),
        (
            "FLASHCARDS_DATABASE_CONNECTIONS",
            "0",
            r"a whole number from 1 to 100 \(connections of a process\)",
        ),
        ("FLASHCARDS_DATABASE_PATIENCE", "-1", r"database\.patience.*a number from"),
        ("FLASHCARDS_MEDIA_BUCKET", "My_Bucket", r"media\.bucket.*must be like my-cards"),
        ("FLASHCARDS_MEDIA_BUCKET", "ab", r"must be like my-cards"),
        ("FLASHCARDS_MEDIA_FOLDER", "", r"media\.folder.*must be like media"),
        ("FLASHCARDS_MEDIA_PUBLIC_URL", "cdn.example", r"media\.public_url.*must be like https://"),
        ("AWS_ENDPOINT_URL", "ftp://s3.local", r"media\.endpoint.*must be like https://"),
        ("AWS_REGION", "Frankfurt", r"media\.region.*must be like us-east-1"),
    ],
)
def test_an_impossible_value_is_refused(name: str, value: str, allowed: str) -> None:
    with pytest.raises(UsageError, match=allowed) as raised:
        load({name: value})
    assert f"environment variable {name}" in str(raised.value)
    assert repr(value) in str(raised.value)


def test_a_misspelt_name_is_refused_with_those_that_are_like_it() -> None:
    with pytest.raises(
        UsageError, match="FLASHCARDS_TEXT_RAET is no setting; there are FLASHCARDS_TEXT_RATE"
    ):
        load({"FLASHCARDS_TEXT_RAET": "2"})


def test_a_profile_that_does_not_exist_is_refused() -> None:
    allowed = "must be one of development, production, original"
    with pytest.raises(UsageError, match=f"ENVIRONMENT is 'staging': it {allowed}"):
        load({"ENVIRONMENT": "staging"})


def test_a_misspelt_name_in_the_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wrong = settings.FILE.read_text(encoding="utf-8").replace("burst =", "brust =")
    (tmp_path / "settings.toml").write_text(wrong, encoding="utf-8")
    monkeypatch.setattr(settings, "FILE", tmp_path / "settings.toml")
    with pytest.raises(UsageError, match=r"text\.brust"):
        load({})
