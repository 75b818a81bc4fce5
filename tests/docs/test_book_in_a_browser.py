"""The book in Chromium, from the files alone and without a network, as a reader sees it."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minitransformer import AdapterConfig, TransformerConfig
from minitransformer.costs.parameters import FLOAT32, count_adapters, count_parameters
from minitransformer.costs.step import count_step

pytestmark = pytest.mark.slow

DESKTOP, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    selenium = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium and chromedriver here: nobody has looked at the book")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-background-networking",
        "disable-component-update", "disable-sync", "no-first-run", f"user-data-dir={profile}",
        "host-resolver-rules=MAP * ~NOTFOUND",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = selenium.ChromeService(driver)
    with selenium.Chrome(options=options, service=service) as opened:
        opened.command_executor.client_config.timeout = 600  # a busy machine may take its time
        opened.set_script_timeout(300)
        yield opened


def show(
    browser: Any, page: Path, size: tuple[int, int], query: str = "", dark: bool = False
) -> None:
    """Open a page, and wait until its formulas are set."""
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1}
    metrics["mobile"] = size[0] < 600
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(page.as_uri() + query)
    browser.execute_async_script(
        "const done = arguments[0], set = window.MathJax?.startup?.promise;"
        "Promise.resolve(set).then(() => done())"
    )


def pages(book: Path) -> list[Path]:
    return [path for path in sorted(book.rglob("*.html")) if "_static" not in path.parts]


def test_no_page_scrolls_sideways_and_every_formula_is_set(book: Path, browser: Any) -> None:
    formulas, wide = 0, []
    for page, size in itertools.product(pages(book), (DESKTOP, PHONE)):
        show(browser, page, size)
        width = browser.execute_script("return document.documentElement.scrollWidth")
        if width > size[0]:
            wide.append((page.name, size[0], width))
        formulas += browser.execute_script(
            "return document.querySelectorAll('mjx-container').length"
        )
        assert not browser.execute_script(
            "return [...document.querySelectorAll('mjx-merror, span.math, div.math')]"
            ".filter(e => e.tagName === 'MJX-MERROR' || !e.querySelector('mjx-container'))"
            ".map(e => e.textContent)"
        ), page
    assert not wide
    assert formulas > 100
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors


def test_dark_follows_the_system(book: Path, browser: Any) -> None:
    brightness = []
    for dark in (False, True):
        show(browser, book / "index.html", DESKTOP, dark=dark)
        color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        brightness.append(sum(int(n) for n in color.strip("rgba()").split(",")[:3]))
    assert brightness[0] > 600 > 150 > brightness[1]


def test_search_finds_pages_without_a_server(book: Path, browser: Any) -> None:
    for word, page in (("glossary", "glossary.html"), ("AdapterDrop", "costs.html")):
        show(browser, book / "search.html", DESKTOP, query=f"?q={word}")
        found = browser.execute_async_script(
            """
            const done = arguments[0];
            const look = () => {
              const status = document.querySelector("#search-results .search-summary");
              const links = [...document.querySelectorAll("#search-results li a")];
              const ended = status && /\\d|not match/.test(status.textContent);
              if (ended && links.length) done(links.map((a) => a.href));
              else setTimeout(look, 100);
            };
            look();
            """
        )
        assert any(f"/{page}" in link for link in found), (word, found)


def test_the_keyboard_reaches_everything(book: Path, browser: Any) -> None:
    from selenium.webdriver import ActionChains, Keys

    show(browser, book / "index.html", DESKTOP)
    names, unseen = [], []
    for _ in range(200):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        name, again, seen = browser.execute_script(
            """
            const e = document.activeElement, style = getComputedStyle(e);
            const again = e === document.body || "reached" in e.dataset;
            e.dataset.reached = "";
            const seen = style.outlineStyle !== "none" || style.boxShadow !== "none";
            return [e.name || e.getAttribute("href") || e.className, again, seen];
            """
        )
        if again:
            break
        names.append(name)
        unseen += [] if seen else [name]
    assert names[0] == "#main-content"  # skip to the text
    fields = ["d", "layers", "dFF", "m", "placement", "sites", "tasks"]
    assert [name for name in names if name in fields] == fields
    for link in ("notebooks/index.html", "howto/own-data.html", "api/index.html"):
        assert link in names
    assert any("search-button" in name for name in names)
    assert not unseen  # where the focus is can be seen


# -- the card on the front page -----------------------------------------------------------

SITES = {"both": None, "attention": ("attention",), "ffn": ("ffn",)}


def expected(c: dict[str, Any]) -> dict[str, float]:
    """What `costs` says about a choice of the card's fields."""
    shape = TransformerConfig(
        30522, c["d"], c["layers"], 1, c["dFF"], token_types=2, pooler=True
    )  # fmt: skip
    sites = SITES[c["sites"]] or ("attention", "ffn")
    adapter = AdapterConfig(c["m"], placement=c["placement"], sites=sites)
    base, added = count_parameters(shape).total, count_adapters(shape, adapter).total
    task = count_step(shape, 1, 128, "adapter", adapter)
    plain = count_step(shape, 1, 128, "head")
    return {
        "base": base,
        "adapters": added,
        "share": added / base,
        "taskBytes": task.task_bytes,
        "allBytes": FLOAT32 * base + c["tasks"] * task.task_bytes,
        "copyBytes": c["tasks"] * (FLOAT32 * base + plain.task_bytes),
        "multiplyAdds": task.multiply_adds.forward - plain.multiply_adds.forward,
    }


def test_the_card_counts_what_costs_counts(book: Path, browser: Any) -> None:
    show(browser, book / "index.html", DESKTOP)
    shapes = [(768, 12, 3072), (384, 6, 1536), (1024, 24, 4096), (64, 1, 100)]
    widths, tasks = (1, 8, 64, 256), (1, 10, 1000)
    placements = ("after_norm", "houlsby", "pfeiffer", "parallel")
    choices = itertools.product(shapes, widths, placements, SITES)
    for (shape, m, placement, sites), n in zip(choices, itertools.cycle(tasks), strict=False):
        choice = dict(zip(("d", "layers", "dFF"), shape, strict=True))
        choice |= {"m": m, "placement": placement, "sites": sites, "tasks": n}
        shown = browser.execute_script("return adapterCosts(arguments[0])", choice)
        assert shown == pytest.approx(expected(choice), rel=1e-12), choice


def test_the_card_answers_what_is_typed(book: Path, browser: Any) -> None:
    from selenium.webdriver import Keys
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    show(browser, book / "index.html", PHONE)
    form = browser.find_element(By.ID, "adapter-costs")
    output = form.find_element(By.TAG_NAME, "output")
    assert "2,379,264" in output.text
    assert "2.17 %" in output.text

    width = form.find_element(By.NAME, "m")
    width.send_keys(Keys.CONTROL, "a", Keys.NULL, "8")
    assert f"{count(bottleneck=8):,}" in output.text
    Select(form.find_element(By.NAME, "placement")).select_by_visible_text("pfeiffer")
    assert Select(form.find_element(By.NAME, "sites")).first_selected_option.text == "feed-forward"
    assert f"{count(bottleneck=8, placement='pfeiffer'):,}" in output.text
    width.send_keys(Keys.CONTROL, "a", Keys.NULL, "0")
    assert output.text == "Bottleneck m: a whole number from 1 to 20000."


def count(**adapter: Any) -> int:
    shape = TransformerConfig(30522, 768, 12, 12, 3072, token_types=2, pooler=True)
    return count_adapters(shape, AdapterConfig(**adapter)).total
