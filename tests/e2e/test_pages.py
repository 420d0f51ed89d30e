"""The pages in a browser, over a real installation: every link, forms with right and wrong input, accessibility.

The browser is the system's Chromium, driven by Playwright; where there is none the summary says NOT TESTED.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin

import pytest
from playwright.sync_api import Page, sync_playwright

from schemas.times import format_time
from tests.e2e.installation import ROOT, Installation, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
AXE = ROOT / "tests" / "vendor" / "axe.min.js"
FAULTS = "axe.run().then(found => found.violations.map(each => each.id + ' ' + each.nodes[0].target))"
OF_A_KIND = 2


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with a purchase, usage, a dead letter and settings in it."""
    if CHROMIUM is None:
        pytest.skip("NOT TESTED: no Chromium here (Debian, Ubuntu: apt install chromium)")
    folder = tmp_path_factory.mktemp("pages")
    installation = Installation.at(folder)
    now = format_time(time.time_ns() // 1_000)
    lines: dict[str, list[dict[str, Any]]] = {
        "setting": [
            {"setting_id": "s1", "org_id": org, "occurred_at": now, "actor": "ops", "actor_role": "system",
             "kind": "org", "body": {"time_zone": "Europe/Madrid", "administrators": ["ann", "anybody"]}}
            for org in ("acme", "bolt")
        ],
        "purchase": [{"purchase_id": f"p-{org}", "org_id": org, "occurred_at": now, "wallet": "USD", "amount": "50"}
                     for org in ("acme", "bolt")],
        "usage": [
            {"event_id": f"u{n}", "org_id": "acme", "occurred_at": now, "operation": "chat", "model": f"m-{n % 3}",
             "wallet": "USD", "cost": "0.123456789", "input_tokens": 10, "output_tokens": 5}
            for n in range(12)
        ] + [{"event_id": "lost", "org_id": "acme", "occurred_at": now, "operation": "nosuch"}],
    }  # fmt: skip
    with installation.up():
        for kind, rows in lines.items():
            (folder / f"{kind}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
            installation.run("produce", kind, "--file", f"{kind}.jsonl")
        until("the usage is booked", lambda: _seq(installation) >= 14)
        count = "SELECT count() FROM v_ledger WHERE org_id = 'acme'"
        until("it is projected", lambda: installation.json("sql", count)["rows"][0][0] >= 14)
        yield installation


def _seq(installation: Installation) -> int:
    found = installation.run("balance", "acme", "--json")
    return int(json.loads(found.stdout)["seq"])


@pytest.fixture
def page(running: Installation) -> Iterator[Page]:
    """A browser's page; an error in its console fails the test."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if "Content Security" in line.text else None)
        yield page
        browser.close()
        assert not errors


def _links(page: Page, base: str) -> set[str]:
    found = page.eval_on_selector_all("a[href]", "all => all.map(each => each.getAttribute('href'))")
    return {urldefrag(urljoin(base, each))[0] for each in found}


def _kind(address: str) -> str:
    """What a page shows, whichever organisation, entry or day it is of."""
    path = urldefrag(address)[0].partition("?")[0]
    return re.sub(r"\d+", "0", re.sub(r"/orgs/[^/]+", "/orgs/one", path))


def test_every_link_leads_to_a_page_without_faults(running: Installation, page: Page) -> None:
    """And no page scrolls sideways on a small screen."""
    base = f"{running.http}/ui/"
    waiting, axe = [base], AXE.read_text()
    seen, met = {base}, Counter([_kind(base)])
    faults: list[str] = []
    while waiting:
        address = waiting.pop(0)
        answer = page.request.get(address)
        assert answer.ok, f"{address}: {answer.status}"
        if "text/html" not in answer.headers["content-type"]:
            continue
        page.goto(address)
        page.evaluate(axe)
        faults += [f"{address}: {each}" for each in page.evaluate(FAULTS)]
        page.set_viewport_size({"width": 320, "height": 700})
        if (width := page.evaluate("document.documentElement.scrollWidth")) > 320:
            faults.append(f"{address}: scrolls sideways to {width} px")
        page.set_viewport_size({"width": 1280, "height": 900})
        for link in sorted(_links(page, address) - seen):
            seen.add(link)
            met[_kind(link)] += 1
            if met[_kind(link)] <= OF_A_KIND:
                waiting.append(link)
    assert faults == []
    assert len(met) > 20


def test_numbers_are_those_of_the_ledger(running: Installation, page: Page) -> None:
    page.goto(f"{running.http}/ui/orgs/acme/")
    balance = running.json("balance", "acme")["wallets"][0]
    shown = page.locator(".card .large").get_attribute("title")
    assert shown is not None
    assert Decimal(shown.split()[0].replace(",", "")) == Decimal(balance["available"])
    page.goto(f"{running.http}/ui/orgs/acme/usage")
    total = page.locator("tfoot td.num").first.locator("span").get_attribute("title")
    assert total is not None
    assert Decimal(total.split()[0]) == 12 * Decimal("0.123456789")
    assert page.locator(".chart canvas").count() <= 1


def test_saving_waits_for_the_ledger(running: Installation, page: Page) -> None:
    page.goto(f"{running.http}/ui/orgs/acme/settings/month_limits?subject=USD")
    page.fill("[name=alert_threshold]", "90")
    page.fill("[name=allowed_limit]", "80")
    page.click("main form button")
    page.locator(".notice.bad").wait_for()
    assert "invalid setting" in page.locator(".notice.bad").inner_text()
    page.goto(f"{running.http}/ui/orgs/acme/buy")
    page.fill("[name=amount]", "7.5")
    page.click("main form button")
    page.locator(".notice.good").wait_for()
    assert "Booked as" in page.locator(".notice.good").inner_text()
    page.goto(f"{running.http}/ui/orgs/acme/transfer")
    page.fill("[name=target_org_id]", "bolt")
    page.fill("[name=amount]", "1000000")
    page.fill("[name=actor]", "ann")
    page.click("main form button")
    page.locator(".notice.bad").wait_for()
    assert "insufficient credits" in page.locator(".notice.bad").inner_text()


def test_a_dead_letter_is_sent_again(running: Installation, page: Page, tmp_path: Path) -> None:
    page.goto(f"{running.http}/ui/dead-letters?state=open")
    page.locator("tbody a").first.click()
    assert "unknown price" in page.locator("main").inner_text()
    page.click("main form button")
    page.locator(".notice.good").wait_for()
    page.screenshot(path=str(tmp_path / "letter.png"))
