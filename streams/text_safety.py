"""Text that people read: without control characters, and without secrets.

The rules of this file:
1. Ids, keys, operations and messages come from outside. A character that does not print (C0, C1, escape sequences,
   changes of the writing direction, line separators, lone surrogates) is shown as its code: `\\x1b`, `\\u202e`.
   Nothing that a producer writes can move the cursor, hide a line, or add one to a log.
2. A secret in a text is replaced by `***`: the password of an address, a parameter whose name says that it is one, and
   every secret of the settings in force wherever it stands (`conceal`). Too much is hidden rather than too little.
3. Pure but for the list of concealed secrets. Every function takes time linear in the length of the text.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote

HIDDEN: Final = "***"

CONCEALED_CHARS_MIN: Final = 8
"""A shorter secret is part of ordinary words ("credits"): hidden only where an address or a parameter holds it."""

_NAMES = (
    r"passw(?:or)?d|passphrase|pwd|secret|token|api[_.\- ]?key|access[_.\- ]?key|secret[_.\- ]?key|private[_.\- ]?key"
    r"|account[_.\- ]?key|credentials?|signature|user[_.\- ]?info|authorization"
)
# The name may begin with others (`sasl.password`, `clientSecret`) and must end there: `input_tokens=5` is no secret.
_NAMED = re.compile(
    rf"(?i)(?:{_NAMES})\\*[\"']?"
    # `password=x`, `password: "x"`, `password:x`; not `a user and a password: set …`, which is a sentence.
    r"(?:\s*=\s*|:\s+(?=\\*[\"'])|:(?=\S))"
)
_ENDS_SECRET = re.compile(rf"(?i)(?:{_NAMES})\Z")
# In the query of an address also short names: `?key=`, `?sig=`; a header of ClickHouse's ends in "-key".
_PARAMETERS = r"key|pass|auth|sig|sas"
_PARAMETER = re.compile(rf"(?i)((?<=[?&])(?:{_PARAMETERS})=|\bx-[a-z-]*key(?:=|\\*[\"']?:\s*\\*[\"']?))[^\s&#\"'\\]+")
# A word as long as "authentication" may follow in a sentence; a token is longer, or stands in a header.
_SCHEME = re.compile(r"(?i)(authorization\S*\s+\S{0,2}(?:basic|bearer)\s+|\b(?:basic|bearer)\s+(?=\S{16}))\S+")
_QUOTED = {quote_sign: re.compile(rf"(?s)(?:\\.|[^\\{quote_sign}])*{quote_sign}?") for quote_sign in "\"'"}
_UNQUOTED_END = re.compile(r"[\s&;,#\"'<>)\]}]")
_TOKEN = re.compile(r"\S+")

_concealed: set[str] = set()


def printable(text: str) -> str:
    """The text on one line, with a code for each character that does not print."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _code(character) for character in text)


def printable_lines(text: str) -> str:
    """The same, but line ends stay: for texts of our own that have several lines."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(document: str) -> str:
    """A JSON document that means the same, with JSON's own codes for characters that do not print."""
    if document.isprintable():
        return document
    return "".join(
        character if character.isprintable() or character == "\n" else _json_code(character) for character in document
    )


def _code(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character, f"\\x{number:02x}")
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _json_code(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[index]:02x}{units[index + 1]:02x}" for index in range(0, len(units), 2))


def conceal(secrets: Iterable[str]) -> None:
    """From now on `redacted` hides these secrets of this process, also percent-encoded and in base64."""
    for secret in secrets:
        for form in (secret, unquote(secret), quote(secret, safe=""), base64.b64encode(secret.encode()).decode()):
            if len(form) >= CONCEALED_CHARS_MIN:
                _concealed.add(form)


def redacted(text: str) -> str:
    """The text without secrets."""
    for secret in sorted(_concealed, key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, HIDDEN)
    if "@" in text and "://" in text:
        text = _TOKEN.sub(lambda found: _without_user(found.group()), text)
    lowered = text.lower()
    if "=" in text or ":" in text:
        text = _without_named(text)
        text = _PARAMETER.sub(rf"\1{HIDDEN}", text)
    if "basic" in lowered or "bearer" in lowered:
        text = _SCHEME.sub(_without_token, text)
    return text


def redacted_address(address: str) -> str:
    """A whole setting that is an address, or several with commas: whatever stands before the last `@` is hidden."""
    if "@" in address:
        scheme, sign, rest = address.partition("://")
        if rest.startswith("/"):  # a path has no user
            return redacted(address)
        before, _, host = (rest if sign else address).rpartition("@")
        user, colon, _ = before.partition(":")
        address = (scheme + sign if sign else "") + (f"{user}:" if colon else "") + f"{HIDDEN}@{host}"
    return redacted(address)


def names_a_secret(name: str) -> bool:
    """Whether a parameter or a field of this name holds a secret."""
    return _ENDS_SECRET.search(name) is not None


def secrets_of_address(address: str) -> list[str]:
    """What is secret in an address: its password, or its user where there is no password; secret parameters."""
    found = []
    _, _, rest = address.partition("://")
    if "@" in rest:
        before = rest.rpartition("@")[0]
        user, colon, password = before.partition(":")
        found += [password, f"{unquote(user)}:{unquote(password)}"] if colon else [user]
    for part in re.split(r"[?&#]", address)[1:]:
        name, sign, value = part.partition("=")
        if sign and (names_a_secret(name) or re.fullmatch(_PARAMETERS, name, re.IGNORECASE)):
            found.append(value)
    return [each for each in found if each]


def _without_user(token: str) -> str:
    """A word without the user and password of the address in it: from `://` to the last `@`."""
    begin = token.find("://")
    end = token.rfind("@")
    if begin < 0 or end < begin or token[begin + 3] == "/":  # a path has no user
        return token
    user, colon, _ = token[begin + 3 : end].partition(":")
    return f"{token[: begin + 3]}{user + ':' if colon else ''}{HIDDEN}{token[end:]}"


def _without_token(found: re.Match[str]) -> str:
    return (found[1] or "") + HIDDEN


def _without_named(text: str) -> str:
    kept = []
    done = 0
    for found in _NAMED.finditer(text):
        if found.start() < done:  # inside of a value that is hidden already
            continue
        end = _value_end(text, found.end())
        if end > found.end():
            kept.append(text[done : found.end()] + HIDDEN)
            done = end
    return "".join(kept) + text[done:] if kept else text


def _value_end(text: str, begin: int) -> int:
    """Where the value that begins here ends. One in quotes that are not closed takes the rest of the text."""
    index = begin
    while index < len(text) and text[index] == "\\":
        index += 1
    if index < len(text) and text[index] in _QUOTED:
        if index > begin:  # quoted once more as a whole: its own quotes are escaped
            opening = text[begin : index + 1]
            end = text.find(opening, index + 1)
            return len(text) if end < 0 else end + len(opening)
        closed = _QUOTED[text[index]].match(text, index + 1)
        assert closed is not None, "it matches nothing, too"
        return closed.end()
    ends = _UNQUOTED_END.search(text, begin)
    return len(text) if ends is None else ends.start()
