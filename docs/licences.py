"""The licences of what is installed with the system: writes THIRD_PARTY.md. Run: python -m docs.licences

Rules of this file: packages and versions are those of requirements/run.txt. A licence is what the package says of
itself, as an SPDX expression, a classifier, or a text; `KNOWN` says what people read where it says nothing or is not
installed here. What is not in `FREE` must have a reason in `ACCEPTED`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements" / "run.txt"
PAGE = ROOT / "THIRD_PARTY.md"

FREE = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "PSF-2.0",
        "Zlib",
    }
)
"""Licences that only ask to be named."""

ACCEPTED = {
    "certifi": "MPL-2.0: covers its own files, which are used as they are",
    "orjson": "MPL-2.0 for its own files, which are used as they are",
    "fpdf2": "LGPL-3.0-only: imported as a package of its own, unchanged, and replaceable by any other version with "
    "`pip install`; nothing of it is copied. Changing fpdf2, or shipping the system as one file, has "
    "conditions: see docs/decisions.md, 43",
    "venusian": "Repoze Public License, which is BSD-like",
}
"""Why a package under another licence is used all the same."""

KNOWN = {
    "pyruhvro": "MIT",  # the metadata say nothing; the package carries the text, dist-info/licenses/LICENSE
    "faust-streaming": "BSD-3-Clause",
    "venusian": "Repoze",
    "authlib": "BSD-3-Clause",
    "joserfc": "BSD-3-Clause",
    "httpx": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "lz4": "BSD-3-Clause",
    "mode-streaming": "BSD-3-Clause",
    "backports-zstd": "PSF-2.0",
    "colorama": "BSD-3-Clause",
}

WORDS = {
    "Apache Software License": "Apache-2.0",
    "Apache 2": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "MIT License": "MIT",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


@dataclass(frozen=True)
class Vendored:
    """A file of another project that is part of this one. `text`: the file of its licence."""

    file: str
    text: str
    project: str
    version: str
    licence: str


VENDORED = (
    Vendored("streams/ui/static/vendor/htmx.min.js", "htmx.LICENSE", "htmx.org", "2.0.11", "0BSD"),
    Vendored("streams/ui/static/vendor/uPlot.iife.min.js", "uplot.LICENSE", "uplot", "1.6.32", "MIT"),
    Vendored("streams/ui/static/vendor/uPlot.min.css", "uplot.LICENSE", "uplot", "1.6.32", "MIT"),
    Vendored("tests/vendor/axe.min.js", "axe.LICENSE", "axe-core (tests only)", "4.14.1", "MPL-2.0"),
)
"""From the packages of npm of that name and version, byte by byte."""

LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(?: *; *([^\\]+?))? *\\?$", re.MULTILINE)


@dataclass(frozen=True)
class Package:
    """A package of the lock. `licence` is empty where it is not known here."""

    name: str
    version: str
    licence: str


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_of(name: str) -> str:
    """An SPDX expression, or the words that the package says; empty when it is not installed or says nothing."""
    if name in KNOWN:
        return KNOWN[name]
    try:
        metadata = distribution(name).metadata
    except PackageNotFoundError:
        return ""
    expressions: list[str] = metadata.get_all("License-Expression") or []
    if expressions:
        return expressions[0]
    texts: list[str] = metadata.get_all("License") or []
    classifiers: list[str] = [each for each in metadata.get_all("Classifier") or [] if each.startswith("License")]
    words = [*(text.split("\n")[0] for text in texts), *(each.rsplit("::", 1)[-1].strip() for each in classifiers)]
    found = [WORDS.get(word, word) for word in words]
    return next((word for word in found if word in FREE or word == "MPL-2.0"), found[0] if found else "")


def is_free(licence: str) -> bool:
    """Whether some way of reading the expression needs only licences of `FREE`."""
    inner = re.search(r"\(([^()]*)\)", licence)
    if inner is not None:
        read = "MIT" if is_free(inner[1]) else "another"
        return is_free(licence[: inner.start()] + read + licence[inner.end() :])
    return any(all(part.strip() in FREE for part in choice.split(" AND ")) for choice in licence.split(" OR "))


def locked(lock: Path = LOCK) -> list[tuple[str, str, str]]:
    """Name, version and marker of everything in a lock."""
    rows = LOCKED.findall(lock.read_text(encoding="utf-8"))
    return [(normal(name), version, marker) for name, version, marker in rows]


def packages() -> list[Package]:
    """What is in the lock, by name; where a Python or a system has a version of its own, with all of them.

    What only a browser's Python installs is left out: no Kafka client runs there.
    """
    versions: dict[str, list[str]] = {}
    for name, version, marker in locked():
        if "== 'emscripten'" not in marker:
            versions.setdefault(name, []).append(version)
    return [Package(name, ", ".join(found), licence_of(name)) for name, found in versions.items()]


def faults(found: list[Package]) -> list[str]:
    """Packages whose licence is unknown, or needs a reason and has none."""
    return [
        f"{each.name} {each.version}: {each.licence or 'states no licence'}; say in docs/licences.py why it may be used"
        for each in found
        if not is_free(each.licence) and each.name not in ACCEPTED
    ]


def page(found: list[Package]) -> str:
    """The page."""
    lines = [
        "# Third-party software",
        "",
        "`make licences` writes this page from requirements/run.txt and from what each package states; do not edit it.",
        "",
        "These packages are installed with the project, some of them on some systems only. The project itself is under",
        "Apache-2.0 (LICENSE). The fonts of PDF documents are DejaVu Sans, with their licence in projections/fonts.",
        "Maven fetches Apache Kafka (Apache-2.0) and its jars, for local brokers only.",
        "",
        "These files of other projects are part of the package, unchanged, with their licences at their side:",
        "",
        "| file | project | version | licence |",
        "|---|---|---|---|",
        *(f"| {each.file} | {each.project} | {each.version} | {each.licence} |" for each in VENDORED),
        "",
        "",
        "| package | version | licence |",
        "|---|---|---|",
        *(f"| {each.name} | {each.version} | {each.licence} |" for each in found),
        "",
        "## With conditions",
        *(f"- **{each.name}**: {ACCEPTED[each.name]}." for each in found if each.name in ACCEPTED),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Write the page; fails where a licence is unknown."""
    found = packages()
    wrong = faults(found)
    if wrong:
        raise SystemExit("\n".join(wrong))
    PAGE.write_text(page(found), encoding="utf-8")
    print(f"wrote {PAGE.name}: {len(found)} packages")


if __name__ == "__main__":
    main()
