"""Text for people: no control character gets through, and no secret."""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from streams import text_safety
from streams.settings import Settings, secrets_of, shown_value
from streams.text_safety import (
    HIDDEN,
    conceal,
    names_a_secret,
    printable,
    printable_json,
    printable_lines,
    redacted,
    redacted_address,
)


@pytest.fixture(autouse=True, scope="module")
def forgotten() -> Iterator[None]:
    """What is concealed is the process's: other tests must not meet it."""
    yield
    text_safety._concealed.clear()


ANY_TEXT = st.text(st.characters(codec=None), max_size=60)
# A mark at both ends, so that a secret is no part of the text around it by chance.
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20).map(
    lambda text: f"§{text}§"
)
# What may stand in a parameter of an address as it is.
PLAIN_SECRETS = st.from_regex(r"[A-Za-z0-9_.~%!*+/:-]{1,20}", fullmatch=True).map(lambda text: f"§{text}§")


@given(ANY_TEXT)
def test_what_is_shown_prints_and_is_one_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()
    assert shown == text or not text.isprintable()
    assert not {unicodedata.category(each) for each in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(ANY_TEXT)
def test_lines_stay_and_nothing_else(text: str) -> None:
    assert printable_lines(text).count("\n") == text.count("\n")
    assert printable_lines(text).replace("\n", "").isprintable()


@given(st.recursive(ANY_TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3)))
def test_a_document_means_the_same_and_prints(document: object) -> None:
    text = json.dumps(document, ensure_ascii=False)
    shown = printable_json(text)
    assert shown.replace("\n", "").isprintable()
    assert json.loads(shown) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("acme", "acme"),
        ("Ünïcode 漢字 🙂", "Ünïcode 漢字 🙂"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2028\u2066\ufeff", "\\u2028\\u2066\\ufeff"),
        ("[red]x[/]", "[red]x[/]"),
    ],
)
def test_what_each_looks_like(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(SECRETS, st.sampled_from(["", "/db", ":8123/db?x=1", ":9092,b:9092"]))
def test_a_password_of_an_address_is_not_shown(secret: str, rest: str) -> None:
    for address in (f"https://user:{secret}@host{rest}", f"https://{secret}@host{rest}", f"{secret}@host{rest}"):
        assert secret not in redacted_address(address)
        assert "host" in redacted_address(address)
    assert secret not in redacted(f"cannot reach https://user:{secret}@host{rest} now")
    assert secret not in redacted(repr(f"https://{secret}@host{rest}"))


NAMES = ["password", "api_key", "apikey", "token", "secret", "access-key", "sasl.password", "ssl_key_password", "PWD"]


@given(PLAIN_SECRETS, st.sampled_from([*NAMES, "basic.auth.user.info", "clientSecret", "X-Api-Key"]))
def test_a_named_secret_is_not_shown(secret: str, name: str) -> None:
    assert names_a_secret(name)
    for text in (
        f"http://host:8123/?user=u&{name}={secret}&database=credits",
        f"tried {name}={secret}, then gave up",
        f"{{'{name}': '{secret}', 'x': 1}}",
        json.dumps({name: secret, "x": 1}),
        json.dumps(json.dumps({name: secret})),
        f"org.apache.kafka.PlainLoginModule required username='u' {name}=\"{secret}\";",
        f"{name}: '{secret} and more",
    ):
        assert secret not in redacted(text), redacted(text)
        assert HIDDEN in redacted(text)


@given(SECRETS)
def test_a_quoted_secret_may_hold_anything(secret: str) -> None:
    quoted = json.dumps(f"{secret} \\\" ' and {secret}")
    shown = redacted(f"sasl.jaas.config=x required password={quoted} username=u;")
    assert secret not in shown
    assert shown.endswith(" username=u;")


@given(SECRETS)
def test_the_secrets_of_the_settings_are_hidden_wherever_they_stand(secret: str) -> None:
    long = f"{secret} with blanks"
    settings = Settings(
        kafka_sasl_password=SecretStr(long),
        clickhouse_url=f"http://me:{quote(secret + 'more7')}@host",
        schema_registry_url=f"https://host/?api_key={quote(long, safe='')}",
    )
    conceal(secrets_of(settings))
    for form in (long, quote(long, safe=""), f"{secret}more7", base64.b64encode(f"me:{secret}more7".encode()).decode()):
        assert form not in redacted(f"a library said <{form}> somewhere")
    for name in type(settings).model_fields:
        assert secret not in str(shown_value(getattr(settings, name)))


@pytest.mark.parametrize(
    "text",
    [
        "SASL_SSL needs a user and a password: set CREDITS_KAFKA_SASL_USERNAME and CREDITS_KAFKA_SASL_PASSWORD",
        "input_tokens=5 output_tokens=7 key=acme",
        "chdb:///data/mail@x/clickhouse",
        "basic authentication is refused",
        "ready: events are taken at Kafka 127.0.0.1:9092; http://127.0.0.1:8080; Ctrl-C stops",
        "alice@example.org paid",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(
    "part", ["a_", "token ", "://", "password='", 'password=\\"', "\\", "token=", "authorization ", "basic ", "@://"]
)
def test_time_is_linear(part: str) -> None:
    """A quadratic pattern would take minutes for a record's megabyte."""
    text = "@" + part * (200_000 // len(part)) + "@"
    redacted(text)
    redacted_address(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://ch:8443/?key=abc&x=1", f"GET https://ch:8443/?key={HIDDEN}&x=1"),
        ("http://h/?a=1&sig=ZZ", f"http://h/?a=1&sig={HIDDEN}"),
        ("http://h/?pass=p&auth=q", f"http://h/?pass={HIDDEN}&auth={HIDDEN}"),
        ("X-ClickHouse-Key: hunter2", f"X-ClickHouse-Key: {HIDDEN}"),
        ("{'X-ClickHouse-Key': 'hunter2', 'b': 1}", f"{{'X-ClickHouse-Key': '{HIDDEN}', 'b': 1}}"),
        ("the key=acme of a record", "the key=acme of a record"),
    ],
)
def test_short_names_are_secrets_in_the_query_of_an_address_and_in_a_header(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert text_safety.secrets_of_address("http://h/?key=abc") == ["abc"]


def test_each_key_of_a_list_is_hidden_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_safety, "_concealed", set())
    keys = ("the-first-key-of-the-test", "the-second-key-of-the-test")
    conceal(secrets_of(Settings(_env_file=None, internal_key=SecretStr(f"{keys[0]}, {keys[1]},none"))))
    for key in keys:
        assert redacted(f"a record sealed with {key} or none") == "a record sealed with *** or none"
