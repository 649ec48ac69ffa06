"""The built book, looked at in headless Chromium: figures, links, mathematics, the figure to play with; no request.

The book is built once, by the command a reader types. Screenshots of every page in both themes go to _build/shots.
"""

import functools
import http.server
import math
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
import torch
import yaml

from coordreg.coords import Labels, from_pixels, to_pixels
from coordreg.dark import Dark
from coordreg.heatmap import Argmax, Gaussian, QuarterSecond, QuarterSign
from coordreg.plots.decoding import Peak

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build/tested/_build"
SHOTS = ROOT / "_build/shots"
CANDIDATES = ("/usr/bin/chromium", "chromium", "google-chrome", "chromium-browser")
CHROMIUM = next((path for path in map(shutil.which, CANDIDATES) if path), None)

pytestmark = pytest.mark.browser


def toc_pages() -> list[str]:
    """Every page of _toc.yml, without suffix."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


PAGES = toc_pages()


def make(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run make with this interpreter, free of the settings of a make that may be running us."""
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER")
    env = {k: v for k, v in os.environ.items() if k not in outer}
    command = ["make", *arguments, f"PYTHON={sys.executable}"]
    return subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True, timeout=600)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that does not write a line for every request."""

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[SimpleNamespace]:
    """The built book and the address it is served at."""
    done = make(ROOT, "book", f"BUILD={BUILD.relative_to(ROOT)}")
    if done.returncode:
        pytest.fail(f"make book failed:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}", pytrace=False)
    folder = BUILD / "html"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield SimpleNamespace(folder=folder, url=f"http://127.0.0.1:{server.server_port}/", log=done.stdout)
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium that asks nobody for anything."""
    if CHROMIUM is None:
        pytest.skip("no Chromium to look at the book with: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    flags = [
        *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--force-color-profile=srgb"),
    ]
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags)
        yield running
        running.close()


@pytest.fixture(scope="module")
def visits(site: SimpleNamespace, browser: Any) -> dict[str, SimpleNamespace]:
    """Open every page once: what it asked for, what it complained of, what is on it; photograph it in both themes."""
    found = {}
    for theme in ("light", "dark"):
        shutil.rmtree(SHOTS / theme, ignore_errors=True)
        (SHOTS / theme).mkdir(parents=True)
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, color_scheme="light", reduced_motion="reduce"
    )
    for name in PAGES:
        page, seen = context.new_page(), SimpleNamespace(requests=[], complaints=[])
        page.on("request", lambda request, seen=seen: seen.requests.append(request.url))
        page.on("requestfailed", lambda r, seen=seen: seen.complaints.append(f"failed: {r.url}"))
        page.on(
            "response", lambda r, seen=seen: seen.complaints.append(f"{r.status} {r.url}") if r.status >= 400 else None
        )
        page.on("pageerror", lambda error, seen=seen: seen.complaints.append(str(error)))
        page.on(
            "console",
            lambda m, seen=seen: seen.complaints.append(m.text) if m.type in ("error", "warning") else None,
        )
        page.goto(f"{site.url}{name}.html", wait_until="load")
        page.evaluate("async () => { if (window.MathJax?.startup?.promise) await MathJax.startup.promise }")
        seen.facts = page.evaluate(FACTS)
        for theme in ("light", "dark"):
            page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
            page.screenshot(path=SHOTS / theme / f"{name.replace('/', '-')}.png", full_page=True)
        page.set_viewport_size({"width": 390, "height": 800})
        seen.width = page.evaluate("document.documentElement.scrollWidth")
        page.close()
        found[name] = seen
    context.close()
    return found


FACTS = r"""() => {
  const article = document.querySelector("article");
  const box = (e) => { const r = e.getBoundingClientRect(); return [r.width, r.height]; };
  const folded = (e) => !!e.closest("details:not([open]), .toggle-hidden, .admonition.toggle-hidden");
  return {
    title: document.title,
    h1: document.querySelectorAll("article h1").length,
    text: document.body.innerText,
    words: article.innerText.split(/\s+/).length,
    images: [...document.querySelectorAll("img")].map((e) => (
      { src: e.getAttribute("src"), alt: e.alt, natural: [e.naturalWidth, e.naturalHeight], shown: box(e),
        inArticle: article.contains(e), hidden: folded(e) || getComputedStyle(e).display === "none" })),
    drawings: [...article.querySelectorAll("svg[role=img]")].filter((e) => !e.closest("mjx-container")).map((e) => (
      { label: e.getAttribute("aria-label") || e.querySelector("title")?.textContent || "", shown: box(e) })),
    math: article.querySelectorAll("span.math, div.math").length,
    rendered: article.querySelectorAll("mjx-container").length,
    mathErrors: [...document.querySelectorAll("mjx-merror, [data-mjx-error]")].map((e) => e.outerHTML.slice(0, 200)),
    tracebacks: document.querySelectorAll(".output.traceback").length,
    stderr: [...document.querySelectorAll(".output.stderr")].map((e) => e.textContent.slice(0, 300)),
    unresolved: [...article.querySelectorAll(".problematic, .system-message")].map((e) => e.textContent),
  };
}"""


def test_the_list_of_pages_is_not_empty() -> None:
    assert len(PAGES) >= 10
    assert {"notebooks/pixels", "notebooks/heatmap", "book/ledger"} <= set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_page_is_there_with_a_title(name: str, visits: dict[str, SimpleNamespace], site: SimpleNamespace) -> None:
    facts = visits[name].facts
    assert facts["h1"] == 1
    assert "Coordinate Regression" in facts["title"] or name == PAGES[0]
    assert facts["words"] > 40, f"{name} has next to no text"
    for theme in ("light", "dark"):
        assert (SHOTS / theme / f"{name.replace('/', '-')}.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", PAGES)
def test_figures_are_shown_and_described(name: str, visits: dict[str, SimpleNamespace]) -> None:
    facts = visits[name].facts
    for image in facts["images"]:
        assert min(image["natural"]) > 0, f"{image['src']} is empty"
        if not image["hidden"]:
            assert min(image["shown"]) > 0, f"{image['src']} takes no room"
        if image["inArticle"]:
            assert len(image["alt"].split()) >= 3, f"{image['src']} needs a description, got alt={image['alt']!r}"
            assert not re.search(r"\.(png|svg|jpe?g)$", image["alt"]), f"alt is a file name: {image['alt']}"
    for drawing in facts["drawings"]:
        assert len(drawing["label"].split()) >= 3
        assert min(drawing["shown"]) > 0
    if name.startswith("notebooks/"):
        assert any(image["inArticle"] for image in facts["images"]), f"{name} shows no figure"


@pytest.mark.parametrize("name", PAGES)
def test_nothing_failed(name: str, visits: dict[str, SimpleNamespace]) -> None:
    facts = visits[name].facts
    assert facts["tracebacks"] == 0
    assert "Traceback (most recent call last)" not in facts["text"]
    assert facts["stderr"] == []
    assert facts["unresolved"] == []
    assert visits[name].complaints == []


@pytest.mark.parametrize("name", PAGES)
def test_no_request_leaves_the_machine(name: str, visits: dict[str, SimpleNamespace], site: SimpleNamespace) -> None:
    requests = visits[name].requests
    assert len(requests) > 3
    assert [url for url in requests if not url.startswith((site.url, "data:", "blob:"))] == []


@pytest.mark.parametrize("name", PAGES)
def test_mathematics_is_set(name: str, visits: dict[str, SimpleNamespace]) -> None:
    facts = visits[name].facts
    assert facts["mathErrors"] == []
    assert facts["rendered"] >= facts["math"]
    if name.startswith("notebooks/") or name == "book/notation":
        assert facts["math"] > 0


@pytest.mark.parametrize("name", PAGES)
def test_page_fits_a_telephone(name: str, visits: dict[str, SimpleNamespace]) -> None:
    assert visits[name].width <= 391, f"{name} is {visits[name].width} px wide on a screen of 390"


def test_internal_links_and_anchors_resolve(site: SimpleNamespace) -> None:
    soup = pytest.importorskip("bs4").BeautifulSoup
    pages = {
        path: soup(path.read_text(), "html.parser")
        for path in site.folder.rglob("*.html")
        if "_static" not in path.parts
    }
    anchors = {path: {e["id"] for e in page.find_all(id=True)} for path, page in pages.items()}
    broken, checked = [], 0
    for path, page in pages.items():
        here = site.url + path.relative_to(site.folder).as_posix()
        for element, attribute in [(e, a) for a in ("href", "src") for e in page.find_all(attrs={a: True})]:
            address = str(element[attribute])
            if address.startswith(("data:", "mailto:", "javascript:")):
                continue
            target, anchor = urldefrag(urljoin(here, address))
            if not target.startswith(site.url):
                continue
            file = site.folder / unquote(urlsplit(target).path).lstrip("/")
            checked += 1
            if not file.is_file() or (anchor and file.suffix == ".html" and unquote(anchor) not in anchors[file]):
                broken.append(f"{path.relative_to(site.folder)}: {address}")
    assert checked > 100
    assert sorted(set(broken)) == []


# -- the figure to play with ------------------------------------------------------------------------------------------


@pytest.fixture
def widget(site: SimpleNamespace, browser: Any) -> Iterator[SimpleNamespace]:
    """The figure on the heatmap page, with helpers to move its sliders and read its table."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{site.url}notebooks/heatmap.html", wait_until="load")
    root = page.locator("div.peak").first
    root.scroll_into_view_if_needed()

    def slide(**values: float) -> None:
        for name, value in values.items():
            root.locator(f"input[data-name={name}]").evaluate(
                "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', { bubbles: true })) }", value
            )

    def read(method: str, what: str) -> str:
        return str(root.locator(f"tr[data-method={method}] td[data-what={what}]").inner_text()).replace("−", "-")

    yield SimpleNamespace(page=page, root=root, slide=slide, read=read, state=lambda: root.evaluate("e => e.peak"))
    page.close()


DECODERS = {"argmax": Argmax(), "sign": QuarterSign(), "second": QuarterSecond()}


@pytest.mark.parametrize(
    ("x", "y", "sigma", "noise"),
    [(3.3, 4.15, 1.2, 0), (2.55, 5.8, 2.0, 0), (0.2, 6.9, 0.8, 0), (4.0, 3.0, 1.5, 0), (3.45, 4.6, 1.0, 0.25)],
)
def test_widget_agrees_with_the_library(
    x: float, y: float, sigma: float, noise: float, widget: SimpleNamespace
) -> None:
    widget.slide(x=x, y=y, sigma=sigma, noise=noise)
    state = widget.state()
    n = state["size"]
    centre = torch.tensor([[[x, y]]], dtype=torch.float64)
    values = torch.tensor(state["values"], dtype=torch.float64).view(1, 1, n, n)
    drawn = Gaussian(sigma=sigma)(Labels(from_pixels(centre, (n, n)), torch.ones_like(centre)), (n, n)).maps
    if noise == 0:
        torch.testing.assert_close(values, drawn, rtol=0, atol=1e-12)
    else:
        assert 0.5 * noise < (values - drawn).std() < 1.5 * noise
    for method, decoder in DECODERS.items():
        place = to_pixels(decoder(values).coords, (n, n))[0, 0]
        error = float((place - centre[0, 0]).norm())
        assert state[method] == pytest.approx(place.tolist(), abs=1e-9)
        assert state["errors"][method] == pytest.approx(error, abs=1e-9)
        shown = [float(v) for v in re.findall(r"-?[\d.]+", widget.read(method, "position"))]
        assert shown == pytest.approx(place.tolist(), abs=0.0051)
        assert float(widget.read(method, "error")) == pytest.approx(error, abs=0.0051)


def test_widget_mean_errors_agree_with_an_independent_sweep(widget: SimpleNamespace) -> None:
    widget.slide(sigma=1.5, noise=0)
    n = widget.state()["size"]
    offsets = (torch.arange(20, dtype=torch.float64) + 0.5) / 10 - 1.5 + n / 2
    centres = torch.cartesian_prod(offsets, offsets).view(-1, 1, 2)
    maps = Gaussian(sigma=1.5)(Labels(from_pixels(centres, (n, n)), torch.ones_like(centres)), (n, n)).maps
    for method, decoder in DECODERS.items():
        error = (to_pixels(decoder(maps).coords, (n, n)) - centres).norm(dim=-1).mean()
        assert float(widget.read(method, "mean")) == pytest.approx(float(error), abs=0.0051)
    assert float(widget.read("sign", "mean")) < float(widget.read("argmax", "mean"))


def test_widget_follows_keys_and_dragging(widget: SimpleNamespace) -> None:
    widget.slide(x=3.3, y=4.15)
    before = widget.read("argmax", "position")
    widget.root.locator("input[data-name=x]").focus()
    for _ in range(6):
        widget.page.keyboard.press("ArrowRight")
    assert widget.state()["x"] == pytest.approx(3.6)
    assert widget.read("argmax", "position") != before
    box = widget.root.locator("svg.peak-grid rect.peak-cell").nth(0).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    widget.page.mouse.move(x + 3 * box["width"], y + 3 * box["height"])
    widget.page.mouse.down()
    widget.page.mouse.move(x + 5.25 * box["width"], y + 2 * box["height"], steps=4)
    widget.page.mouse.up()
    assert widget.state()["x"] == pytest.approx(5.25, abs=0.051)
    assert widget.state()["y"] == pytest.approx(2.0, abs=0.051)
    label = widget.root.locator("svg.peak-grid").get_attribute("aria-label")
    assert "Argmax: (5.00, 2.00)" in label


@pytest.mark.parametrize(
    ("x", "y", "sigma", "noise", "second"),
    [(6.35, 5.2, 1.3, 0, 0), (7.6, 4.45, 2.0, 0.3, 0), (6.1, 5.4, 1.0, 0, 0.8), (1.2, 5.0, 1.3, 0, 0)],
)
def test_four_readings_of_the_dragged_peak_agree_with_the_library(
    x: float, y: float, sigma: float, noise: float, second: float, site: SimpleNamespace, browser: Any
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{site.url}notebooks/dark.html", wait_until="load")
    root = page.locator("div.dragged").first
    for name, value in {"x": x, "y": y, "sigma": sigma, "noise": noise, "second": second}.items():
        root.locator(f"input[data-name={name}]").evaluate(
            "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', { bubbles: true })) }", value
        )
    state = root.evaluate("e => e.peak")
    root.locator("svg").scroll_into_view_if_needed()
    box = root.locator("svg").bounding_box()
    page.mouse.click(box["x"] + 3.5 / 16 * box["width"], box["y"] + 4.5 / 11 * box["height"])
    moved = root.evaluate("e => e.peak")
    label = root.locator("svg").get_attribute("aria-label")
    page.close()
    python = Peak(x=x, y=y, sigma=sigma, noise=noise, second=second)
    m = torch.tensor(state["read"]["m"], dtype=torch.float64)
    torch.testing.assert_close(m, torch.tensor(python.draw()), rtol=0, atol=1e-6)
    decoders = {"argmax": Argmax(), "quarter": QuarterSign(), "DARK": Dark(2 * math.ceil(3 * sigma) + 1, sigma)}
    for name, decoder in decoders.items():
        place = to_pixels(decoder(m[None, None]).coords, m.shape)[0, 0].tolist()
        assert state["read"][name] == pytest.approx(place, abs=1e-6), name
    p = m.clamp_min(0) / m.clamp_min(0).sum()
    mean = [float((p.sum(0) * torch.arange(16.0)).sum()), float((p.sum(1) * torch.arange(11.0)).sum())]
    assert state["read"]["mean"] == pytest.approx(mean, abs=1e-4)
    assert (moved["x"], moved["y"]) == (pytest.approx(3, abs=0.06), pytest.approx(4, abs=0.06))
    said = [float(v) for v in re.search(r"joint at ([\d.]+), ([\d.]+)\.", label).groups()]
    assert said == [pytest.approx(moved["x"], abs=0.0051), pytest.approx(moved["y"], abs=0.0051)]


# -- a failing cell fails the build -----------------------------------------------------------------------------------


def test_a_failing_cell_fails_make_book_every_time(tmp_path: Path) -> None:
    for name in ("Makefile", "_config.yml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "book").mkdir()
    shutil.copytree(ROOT / "book/_static", tmp_path / "book/_static")
    shutil.copy(ROOT / "book/references.bib", tmp_path / "book")
    (tmp_path / "book/welcome.md").write_text("# Welcome\n\nA page without code.\n")
    header = "---\njupytext:\n  text_representation:\n    extension: .md\n    format_name: myst\nkernelspec:\n"
    header += "  display_name: Python 3\n  language: python\n  name: python3\n---\n\n"
    (tmp_path / "book/bad.md").write_text(header + "# Bad\n\n```{code-cell} ipython3\n1 / 0\n```\n")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/welcome\nchapters:\n  - file: book/bad\n")
    for _ in range(2):  # a second build must not skip the page that failed
        done = make(tmp_path, "book")
        assert done.returncode != 0
        assert "ZeroDivisionError" in done.stdout + done.stderr
        assert not (tmp_path / "_build/html/.built").exists()
