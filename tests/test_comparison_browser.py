"""The comparison page in a real browser: no overflow, no errors, both colour schemes.

./launch/local.sh test -m slow tests/test_comparison_browser.py [--page=comparison.html]

It needs Chromium on PATH, controlled by the DevTools protocol over a pipe. Screenshots are written to each test's
folder, which is printed. Without --page a sample page is tested.
"""

import base64
import json
import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from genjax.reports import charts, page

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
# Elements that overflow the window outside of scrollable containers.
WIDER = """
[...document.body.querySelectorAll('*')].filter(e => {
  const box = e.getBoundingClientRect();
  return box.right > innerWidth + 1 && !e.closest('.wide');
}).map(e => e.tagName + '.' + (e.className.baseVal ?? e.className)).slice(0, 5)
"""
# Chart texts cut off at the chart's edge.
CUT = """
[...document.querySelectorAll('svg text')].filter(e => {
  if (e.getClientRects().length === 0) return false;
  const box = e.getBoundingClientRect(), chart = e.closest('svg').getBoundingClientRect();
  return box.left < chart.left - 1 || box.right > chart.right + 1;
}).map(e => e.textContent).slice(0, 5)
"""


class Browser:
    """A headless Chromium with one page."""

    def __init__(self, program: str, folder: Path):
        here, self._out = os.pipe()
        self._in, there = os.pipe()
        shell = f'exec "$0" "$@" 3<&{here} 4>&{there}'  # Chromium reads commands from descriptor 3 and answers on 4
        words = ["bash", "-c", shell, program, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(words, pass_fds=(here, there), **quiet)
        os.close(here)
        os.close(there)
        self._number, self._rest, self._session = 0, b"", None
        self.events: list[dict] = []
        targets = self.send("Target.getTargets")["targetInfos"]
        target = next(t["targetId"] for t in targets if t["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def _receive(self) -> dict:
        while b"\0" not in self._rest:
            part = os.read(self._in, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def send(self, method: str, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            got = self._receive()
            if got.get("id") == self._number:
                assert "error" not in got, got
                return got["result"]
            self.events.append(got)

    def wait(self, event: str) -> None:
        while not any(one.get("method") == event for one in self.events):
            self.events.append(self._receive())

    def value(self, expression: str):
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"]["value"]

    def close(self) -> None:
        os.write(self._out, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        self._process.wait(timeout=30)
        os.close(self._in)
        os.close(self._out)


@pytest.fixture
def browser(tmp_path):
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.fail(
            f"this test needs a browser: none of {', '.join(NAMES)} is on PATH (Debian: apt-get install chromium)"
        )
    opened = Browser(program, tmp_path / "profile")
    yield opened
    opened.close()


def sample_page() -> str:
    """A page like a comparison's: a wide table, charts with long names, pictures."""
    names = [f"a_rather_long_name_{n}, steps 250 (3 seeds)" for n in range(12)]
    heads = [f"column {n}" for n in range(18)]
    cells = [[name, *["123,456 ± 7.89"] * 17] for name in names]
    points = [charts.Point(name, n, 10.0 ** (n / 4), 1.0 + n % 5, 0.1) for n, name in enumerate(names)]
    curves = [
        (name, n, [(float(t), float(n + 1) / (t + 1)) for t in range(40)]) for n, name in enumerate(names)
    ]
    strips = [(name, [1.0 + n, 1.5 + n, 2.2 + n]) for n, name in enumerate(names)]
    return page.page(
        "Comparison of models",
        "Words. " * 60,
        page.section("Numbers", "w", page.table(heads, cells, [[False] * 18 for _ in cells])),
        page.section("Quality", "w", page.figure("", charts.scatter(points, "x", "y"))),
        page.section("Stability", "w", page.charts([page.figure("f", charts.strip(strips, "v"))] * 3)),
        page.section("Training", "w", page.charts([page.figure("f", charts.lines(curves, "s", "loss"))] * 3)),
        page.section(
            "Samples", "w", page.cards([page.figure(name, Image.new("L", (290, 150))) for name in names])
        ),
    )


class Reader(HTMLParser):
    """The elements of a page that are still open, and the addresses that it asks for."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.asked = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.asked += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in ("meta", "link", "img", "br", "hr", "input", "col"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_page_closes_its_elements_and_asks_for_nothing_outside():
    """What can be seen without a browser."""
    read = Reader(sample_page())
    assert read.open == []
    assert len(read.asked) >= 12, "a picture for each model"
    assert all(address.startswith(("data:", "#")) for address in read.asked)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_its_window_in_both_schemes(width, scheme, browser, tmp_path, request):
    given = request.config.getoption("--page")
    shown = Path(given).resolve() if given else tmp_path / "page.html"
    if not given:
        shown.write_text(sample_page(), encoding="utf-8")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.send("Emulation.setDeviceMetricsOverride", **size)
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.send("Page.navigate", url=shown.as_uri())
    browser.wait("Page.loadEventFired")
    height = browser.value("document.documentElement.scrollHeight")
    picture = browser.send(
        "Page.captureScreenshot",
        captureBeyondViewport=True,
        clip={"x": 0, "y": 0, "width": width, "height": min(height, 15000), "scale": 1},
    )
    out = tmp_path / f"{width}-{scheme}.png"
    out.write_bytes(base64.b64decode(picture["data"]))
    print(out)

    assert browser.value("innerWidth") == width
    assert browser.value("document.documentElement.scrollWidth") <= width, browser.value(WIDER)
    assert browser.value(WIDER) == []
    assert browser.value(CUT) == []
    assert browser.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    channel = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)"
    ink = channel.replace("backgroundColor", "color")
    paper, ink = (sum(browser.value(words)) / 3 for words in (channel, ink))
    assert (paper > 200 and ink < 80) if scheme == "light" else (paper < 80 and ink > 200)
    wrong = [e for e in browser.events if e.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")]
    wrong += [e for e in browser.events if e.get("method") == "Runtime.consoleAPICalled"]
    assert wrong == []
    asked = [
        e["params"]["request"]["url"]
        for e in browser.events
        if e.get("method") == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
