"""The page of a report in a real browser: readable on every screen, asks nobody for anything, prints well."""

from __future__ import annotations

import contextlib
import html
import json
import re
import socketserver
import threading
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from rtinfra.local import programs
from rtinfra.local.programs import Tool
from rtinfra.local.progress import ConsoleReporter
from rtinfra.verify import HostProblem, Report, Status, page
from tests.unit.test_verify_report import report, result

PHONE = 390
DESK = 1280
_SECONDS = 120
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--disable-default-apps", "--disable-domain-reliability", "--no-pings"),
)
# Where the browser itself asks for updates and the time, switches or not. That the page names no address at all is
# another test's matter (tests/unit/test_verify_evidence.py).
_OF_THE_BROWSER = re.compile(r"[/.](?:google|googleapis|gstatic|gvt1)\.com[:/]| [\w.]+\.googleapis\.com:")
LONG = "sha256:" + "0123456789abcdef" * 16
PASSED = "The kernel isolates exactly the chosen cores"
FAILED = "All kernel settings have their values"
WHY = "These settings of the running kernel decide how often it interrupts real-time work by itself."


def made() -> Report:
    """A report with everything that a page can show, and the longest words that hosts come up with."""
    areas = ("Isolated cores belong to the real-time application alone", "Tuning of the running kernel", "Latency")
    many = [
        replace(result(f"RT-{row}.{number}"), title=f"Control {row}.{number} holds", area=areas[row % 3])
        for row in range(1, 9)
        for number in range(1, 20)
    ]
    more = {
        "expected": "vm.swappiness 10",
        "actual": f"vm.swappiness 60, {LONG}, /{'very-long-name-of-a-folder/' * 12}file",
        "why": WHY,
        "fix": "Run the deploy again, then `sysctl vm.swappiness` on the host.",
    }
    return report(
        replace(result("RT-10.30", Status.FAIL, **more), title=FAILED, area=areas[1]),
        replace(result("RT-10.1"), title=PASSED, area=areas[0]),
        result("RT-11.1", Status.MEASURED, actual="57029 us", note="measured, not a latency proof"),
        result("RT-10.39", Status.WAIVED, note="waived until 2099-12-31 by Kim Min-jun: 부품 교체 예정"),
        result("RT-10.40", Status.NOT_APPLICABLE, note="the clock of a virtual machine"),
        *many,
        problems=(HostProblem("far", f"root@192.0.2.9 port 22 does not answer. {LONG}"),),
        notes=(f"waivers.yaml:12: the waiver of RT-1.1 on robot is not needed: {LONG}",),
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as it lies in a report's folder."""
    programs.ensure((Tool("chromium", "chromium"), Tool("pdftotext", "poppler-utils")), ConsoleReporter())
    path = tmp_path_factory.mktemp("report") / page.FILE
    path.write_bytes(page.render(made()))
    return path


def chromium(path: Path, *arguments: str) -> str:
    """Open a page in a browser that has never been used before; return what it prints."""
    with TemporaryDirectory(prefix="rtinfra-chromium-") as profile:
        command = ["chromium", *_FLAGS, f"--user-data-dir={profile}", *arguments, path.as_uri()]
        return programs.execute(command, timeout=_SECONDS, env={"HOME": profile}).stdout


def test_what_people_need_is_on_the_page(place: Path) -> None:
    dom = chromium(place, "--dump-dom")
    text = html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", dom, flags=re.DOTALL)))
    for words in (
        "Not everything could be looked at",
        FAILED,
        WHY,
        "vm.swappiness 10",
        "What to do",
        PASSED,
        "Kim Min-jun: 부품 교체 예정",
        "does not answer",
        "measured, not a latency proof",
    ):
        assert words in text, words


@pytest.mark.parametrize("width", [PHONE, 768, DESK])
def test_nothing_is_wider_than_the_screen(place: Path, width: int, tmp_path: Path) -> None:
    """The page, unchanged, in a frame of that width; whatever can be opened is opened."""
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"""<!DOCTYPE html><meta charset="utf-8"><body>
<iframe id="f" style="width:{width}px;height:800px;border:0" srcdoc="{html.escape(place.read_text("utf-8"))}"></iframe>
<script>
window.onload = () => {{
  const page = document.getElementById("f").contentDocument;
  page.querySelectorAll("details").forEach((one) => one.open = true);
  const wide = [...page.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > {width} + 0.5);
  const small = [...page.querySelectorAll("main *")].filter(
    (one) => one.children.length === 0 && one.textContent.trim() && parseFloat(getComputedStyle(one).fontSize) < 11);
  const seen = {{width: page.documentElement.scrollWidth, opened: page.querySelectorAll("details[open]").length,
    wide: wide.map((one) => one.outerHTML.slice(0, 80)), small: small.map((one) => one.outerHTML.slice(0, 80))}};
  document.body.innerHTML = "<pre id=seen></pre>";
  document.getElementById("seen").textContent = JSON.stringify(seen);
}};
</script>""",
        encoding="utf-8",
    )
    dom = chromium(frame, "--dump-dom", "--window-size=1400,900", "--virtual-time-budget=10000")
    match = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
    assert match, dom[-500:]
    seen = json.loads(html.unescape(match[1]))
    assert seen["opened"] > 150, "everything was open while it was measured"
    assert seen["width"] <= width, seen["wide"][:5]
    assert seen["wide"] == []
    assert seen["small"] == [], "text that is too small to be read"


class Proxy(socketserver.ThreadingTCPServer):
    """Lets nothing through and writes down what was asked of it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Refusal)
        self.asked: list[str] = []


class Refusal(socketserver.StreamRequestHandler):
    """One connection to it; a browser also opens some before it knows what for."""

    timeout = 30

    def handle(self) -> None:
        assert isinstance(self.server, Proxy)
        with contextlib.suppress(OSError):
            if line := self.rfile.readline().decode("latin-1").strip():
                self.server.asked.append(line)
                self.wfile.write(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def requests_of(path: Path) -> list[str]:
    """Return what a page asks others for while it is shown and while it is printed."""
    with Proxy() as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        through = (f"--proxy-server=http://127.0.0.1:{proxy.server_address[1]}", "--proxy-bypass-list=<-loopback>")
        chromium(path, *through, "--dump-dom")
        chromium(path, *through, f"--print-to-pdf={path.with_suffix('.pdf')}")
        proxy.shutdown()
        return [line for line in proxy.asked if not _OF_THE_BROWSER.search(line)]


EXTRA = (
    '<img src="http://192.0.2.9/a.png"><link rel="stylesheet" href="http://192.0.2.9/b.css">'
    '<script src="http://192.0.2.9/c.js"></script><iframe src="http://192.0.2.9/d"></iframe>'
)


def test_the_page_asks_nobody_for_anything(place: Path, tmp_path: Path) -> None:
    assert requests_of(place) == []
    # The same way of looking sees requests where there are some.
    loud = tmp_path / "loud.html"
    loud.write_text(f"<!DOCTYPE html><body>{EXTRA}")
    assert {line.split("/")[3][0] for line in requests_of(loud)} >= {"a", "b", "c"}


def test_even_what_slips_in_is_not_asked_for(place: Path, tmp_path: Path) -> None:
    """The page's own policy forbids it; escaping keeps it out in the first place."""
    smuggled = tmp_path / "smuggled.html"
    smuggled.write_text(place.read_text("utf-8").replace("<main>", f"<main>{EXTRA}"), encoding="utf-8")
    assert requests_of(smuggled) == []


def test_it_prints_on_a4_with_everything_that_counts(place: Path, tmp_path: Path) -> None:
    pdf = tmp_path / "report.pdf"
    chromium(place, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
    facts = programs.execute(["pdfinfo", pdf], timeout=_SECONDS).stdout
    pages = re.search(r"^Pages:\s+(\d+)", facts, re.MULTILINE)
    assert pages is not None and 2 <= int(pages[1]) <= 12, facts
    size = re.search(r"^Page size:\s+([0-9.]+) x ([0-9.]+) pts", facts, re.MULTILINE)
    assert size is not None
    assert (round(float(size[1])), round(float(size[2]))) in ((595, 842), (594, 842), (595, 841)), facts
    text = " ".join(programs.execute(["pdftotext", "-layout", pdf, "-"], timeout=_SECONDS).stdout.split())
    assert FAILED in text
    assert WHY in text
    # An area that is closed on the screen is printed all the same: each of its controls in a line.
    assert PASSED in text
    assert "Control 8.19 holds" in text
