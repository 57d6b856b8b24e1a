"""Passwords in URLs: what is masked in messages, and which variables are removed from the environment."""

from __future__ import annotations

import os

import pytest

from promgun.system.secrets import hide_passwords, mask_passwords, may_have_password

#: Each with a password that contains ``s3cret``, whether or not it is a URL.
WITH = [
    "http://batch:s3cret@host",
    "http://o'brien:s3cret pa ss3cret@host:9091",
    "http://batch:s3cret@s3cret@host",
    "http://batch:x/s3cret?s3cret#s3cret@host",
    "http://batch:/s3cret@host",
    "http://:s3cret@host",
    "HTTP://batch:s3cret@host",
    "http://batch:s3cret@[::1]:9091",
    "http://batch:s3cret:s3cret@host",
    "http:/batch:s3cret@host",
    "http:batch:s3cret@host",
    "batch:s3cret@host",
    ":s3cret@host",
    "http://batch:\ts3cret\ns3cret@host",
    r"http:\/\/batch:s3cret\@host",
]


@pytest.mark.parametrize("url", WITH)
def test_a_message_does_not_repeat_it(url: str) -> None:
    for text in (url, f"promgun: error: Got unexpected extra argument ({url}).", f"unknown: '--push={url}'"):
        assert "s3cret" not in mask_passwords(text)
        assert mask_passwords(text).endswith(text.rpartition("@")[2])


@pytest.mark.parametrize(
    "text",
    [
        "promgun: error: --bind 127.0.0.1:8000 is in use",
        "promgun: error: There is no command 'me@host'.",
        "http://batch@host:9091 cannot be reached",
        "http://batch@[::1]:9091",
        "Invalid value for '--bind': me@host is not an address",
        "",
    ],
)
def test_a_message_without_one_stays(text: str) -> None:
    assert mask_passwords(text) == text


@pytest.mark.parametrize("url", WITH)
def test_a_variable_of_ours_with_one_leaves_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMGUN_PUSH_GATEWAY", url)
    monkeypatch.setenv("DATABASE_URL", url)
    hide_passwords(os.environ, ("PROMGUN_PUSH_GATEWAY",))
    assert "PROMGUN_PUSH_GATEWAY" not in os.environ
    assert os.environ["DATABASE_URL"] == url, "it is the application's own"


@pytest.mark.parametrize("value", ["http://batch@host", "http://host:9091", "http://batch@[::1]:9091", ""])
def test_one_without_stays(value: str) -> None:
    assert not may_have_password(value)
