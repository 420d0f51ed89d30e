"""Names, words, lengths of modules: the field's word for each thing, no drawer for odds and ends, one subject each."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.tidy.source import ROOT, modules, texts

BANNED = re.compile(r"(^|_)(utils?|helpers?|managers?|base|common|misc|stuff)(_|$)")
BANNED_CLASS = re.compile(r"(Utils?|Helpers?|Manager|Base)$")
MODULE_LINES_MAX = 700


def test_no_name_says_nothing() -> None:
    every = modules("schemas", "streams", "projections", "tests", "docs")
    wrong = [module.shown for module in every if any(BANNED.search(part) for part in module.name.split("."))]
    wrong += [
        f"{module.shown}: class {node.name}"
        for module in every
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and BANNED_CLASS.search(node.name)
    ]
    assert not wrong, f"say what it is: {wrong}"


def test_modules_have_one_subject() -> None:
    over = {module.shown: length for module in modules() if (length := module.text.count("\n")) > MODULE_LINES_MAX}
    assert not over, f"longer than {MODULE_LINES_MAX} lines, split by subject: {over}"


def test_every_module_states_its_rules() -> None:
    silent = [
        module.shown
        for module in modules()
        if module.text.strip() and ast.get_docstring(module.tree, clean=False) is None
    ]
    assert not silent, f"no module docstring: {silent}"


def test_what_others_use_says_what_it_means() -> None:
    """Meaning, units, errors: every function and class of a module that is not private to it."""
    silent = [
        f"{module.shown}:{node.lineno} {node.name}"
        for module in modules()
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node, clean=False) is None
    ]
    assert not silent, f"no docstring: {silent}"


OLD_NAMES: dict[str, str] = {
    "crowd": "limit_refusal",
    "no_wallet|no_grants|no_credits|no_transit|no_return|no_refund": "refuse_…: it returns a refusal",
    "watch_lines|nearest_line|stands_above|judged_later": "evaluate_alerts, thresholds: a line is a line of the ledger",
    "Unwound|TakenBack|_come_back": "Reversal, plan_reversal, restored",
    "headroom": "fast_path_limit",
    "weigh_after": "remeasure_after_seq",
    "transits|Transit": "in_transit",
    "usage_words|setting_words": "usage_fields, setting_fields",
    "hold_topic|release_topic": "pause_topic, resume_topic: a hold is of credits",
    "leave_alone|commit_quietly|seek_owned": "pause_and_discard, try_commit, seek_assigned",
    "witness": "ledger_topic",
    "worth_asking|after_now|SharedAsk|NotAskedError": "should_search, refresh, CoalescedCall, SchemaNotCachedError",
    "quieten|Seldom|keep_records|_as_wanted|_patiently": "silence_repeats, RateLimitedLog, patch_header_decoding, …",
    "furnished": "benchmark_account",
    "places_of|place_headers": "log_positions_of, position_headers",
}
"""Names that a reader from the field had to stop at, as they would stand in code; and what to write."""

OLD_PHRASES: dict[str, str] = {
    "anew": "again, recreated, recomputed",
    "for ever": "permanently, always, without end",
    "in vain": "without result",
    "mend|mended|mends": "fix",
    "whoever": "the one that does it: the owner, the reader, a client",
    "borne": "tolerated",
    r"the way of an event": "the event flow",
    r"design, \d+": "decision N, and its title",
}
"""Words and phrases refused in every text of ours, however they are spelled; and what to write."""

RELEASED = ("projections/migrations/", "schemas/avro/", "schemas/golden/", "schemas/README.md")
"""What is released is never edited, and the schemas' reference is made from it."""

FOREIGN = (
    "projections/fonts/", "streams/ui/static/vendor/", "tests/vendor/", "THIRD_PARTY.md", "requirements/", "LICENSE",
)  # fmt: skip
ITSELF = Path(__file__).resolve()


def _refused(text: str, words: dict[str, str], flags: int) -> list[str]:
    return [
        f"{match.group()!r} in line {text.count(chr(10), 0, match.start()) + 1}: write {instead}"
        for pattern, instead in words.items()
        for match in re.finditer(rf"(?<![\w-])(?:{pattern})(?![\w-])", text, flags)
    ]


def test_old_words_do_not_come_back() -> None:
    wrong = []
    for path, text in texts():
        shown = str(path.relative_to(ROOT))
        if path == ITSELF or shown.startswith((*RELEASED, *FOREIGN)):
            continue
        found = _refused(text, OLD_PHRASES, re.IGNORECASE)
        if path.suffix == ".py":
            found += _refused(text, OLD_NAMES, 0)
        wrong += [f"{shown}: {each}" for each in found]
    assert not wrong, "\n".join(wrong)


def test_an_old_word_is_seen() -> None:
    assert _refused("The topic was made\nAnew.", OLD_PHRASES, re.IGNORECASE) == [
        "'Anew' in line 2: write again, recreated, recomputed"
    ]
    assert _refused("a crowd", OLD_NAMES, 0) == ["'crowd' in line 1: write limit_refusal"]
    assert not _refused("amended, renewed, crowded", OLD_PHRASES | OLD_NAMES, re.IGNORECASE)
