"""Commands of a documentation page, run as they stand, and their answers compared with those that the page shows.

A block ```sh is run in one shell for the whole page, from which variables stay. A block ```json or ```text that follows
is what it prints. `…` stands for anything; a member `"*"` for any further members. A block that only reads is run again
until its answer is the one shown: what was sent before it is booked a moment later.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ANYTHING = "…"
MORE = "*"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SENDS = re.compile(r"-X |^credits (keys|produce|prices)|^mv |--send", re.MULTILINE)
MAY_BE_REPEATED = re.compile(r"/(authorize|holds|leases)\b")
END = "end of a block"
BLOCK_TIMEOUT_S = 120.0
BOOKED_TIMEOUT_S = 90.0
PAUSE_S = 0.2


@dataclass(frozen=True)
class Block:
    """Lines of a shell, and what the page says that they print; None: the page does not say."""

    script: str
    form: str = ""
    shown: str | None = None

    @property
    def only_reads(self) -> bool:
        """Whether it may be run again: it only reads, or the same again has the same answer."""
        return SENDS.search(self.script) is None or MAY_BE_REPEATED.search(self.script) is not None


def blocks_of(page: Path) -> Iterator[Block]:
    """The page's blocks, in order."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    for number, (form, text) in enumerate(found):
        if form != "sh":
            continue
        after = found[number + 1] if number + 1 < len(found) else ("sh", "")
        yield Block(text, *after) if after[0] in ("json", "text") else Block(text)


class Shell:
    """One shell for a page."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._notes = (folder / "notes.txt").open("w")
        self._process = subprocess.Popen(
            ["bash", "-u", "-o", "pipefail"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._notes,
            text=True,
        )

    @property
    def notes(self) -> str:
        """What went to standard error."""
        return Path(self._notes.name).read_text(errors="replace")

    def run(self, script: str) -> tuple[int, str]:
        """Status and output of some lines."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{script}\necho; echo '{END}' $?\n")
        process.stdin.flush()
        lines: list[str] = []
        deadline = time.monotonic() + BLOCK_TIMEOUT_S
        while True:
            line = process.stdout.readline()
            assert line, f"the shell has ended:\n{script}\n{''.join(lines)}"
            if line.startswith(END):
                return int(line.split()[-1]), "".join(lines).strip()
            lines.append(line)
            assert time.monotonic() < deadline, f"no end within {BLOCK_TIMEOUT_S} s:\n{script}"

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._notes.close()


def run_page(page: Path, shell: Shell, replaced: Mapping[str, str]) -> int:
    """Run every block; how many answers were compared. `replaced`: in the commands, for this installation."""
    compared = 0
    for block in blocks_of(page):
        script = block.script
        for text, other in replaced.items():
            script = script.replace(text, other)
        deadline = time.monotonic() + BOOKED_TIMEOUT_S
        while True:
            status, output = shell.run(script)
            shown = f"{page.name}:\n{script}\nended with {status}, and printed\n{output}\n{shell.notes[-2000:]}"
            if block.shown is None or is_as_shown(block, output):
                break
            assert block.only_reads, f"{shown}\nthe page shows\n{block.shown}"
            assert time.monotonic() < deadline, f"{shown}\nthe page shows\n{block.shown}"
            time.sleep(PAUSE_S)
        assert status == 0, shown
        compared += block.shown is not None
    return compared


def is_as_shown(block: Block, output: str) -> bool:
    """Whether the output is what the page shows."""
    assert block.shown is not None
    if block.form == "json":
        try:
            return is_same(json.loads(block.shown), json.loads(output))
        except ValueError:
            return False
    pattern = re.escape(" ".join(block.shown.split())).replace(ANYTHING, ".*")
    return re.fullmatch(pattern, " ".join(output.split())) is not None


def is_same(shown: Any, found: Any) -> bool:
    """Whether a document is the one that the page shows."""
    if isinstance(shown, dict) and isinstance(found, dict):
        names = set(shown) - {MORE}
        others = set(found) - names
        return names <= set(found) and (MORE in shown or not others) and all(is_same(shown[n], found[n]) for n in names)
    if isinstance(shown, list) and isinstance(found, list):
        return len(shown) == len(found) and all(map(is_same, shown, found))
    if isinstance(shown, str) and ANYTHING in shown:
        return re.fullmatch(re.escape(shown).replace(ANYTHING, ".*"), str(found), re.DOTALL) is not None
    return bool(shown == found)
