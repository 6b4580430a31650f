"""The page in headless Chromium: quiet, alone, and no wider than its window."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup

from bayesnn.report.entropies import draw_entropies
from bayesnn.report.pictures import Drawing, Shown
from bayesnn.suite.judge import Judged, Pictured
from bayesnn.suite.report import write_suite_report
from bayesnn.suite.results import SuiteFolder
from bayesnn.suite.suite import Exhibit, Hypothesis, Judgement, Picture, Suite
from diagnostics.claims import Finding
from diagnostics.estimates import Estimate
from tests.bayesnn import measured
from tests.bayesnn.simulated import LAYERS, classification, ensemble, page_of
from tests.bayesnn.test_report_measured import page as page_with

CHROMIUM = Path("/usr/bin/chromium")
HEADLESS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]
LONG = "a_name_without_any_place_to_break_it_that_is_wider_than_a_telephone"

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM} to open the page with")


def dump(page, profile, *flags):
    """Open a page in headless Chromium; return the document as it became, and what Chromium logs."""
    command = [CHROMIUM, *HEADLESS, f"--user-data-dir={profile}", *flags, "--dump-dom", page.as_uri()]
    environment = {**os.environ, "HOME": str(profile)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)
    assert "</html>" in done.stdout
    return done.stdout, done.stderr


def browse(page, profile):
    """Return messages on a page's console, and addresses that the page asks for."""
    _, log = dump(page, profile, f"--log-net-log={profile / 'net.json'}")
    events = json.loads((profile / "net.json").read_text())["events"]
    requests = [event["params"] for event in events if "initiator" in event.get("params", {})]
    # What the browser asks for on its own has no origin; what a page asks for has that of the page.
    return re.findall(r"CONSOLE.*?\] (.*)", log), [
        request["url"] for request in requests if request["initiator"] != "not an origin"
    ]


def overflow(source, width, folder, inside="html"):
    """Return by how many pixels a page, or a part of it, is wider than a frame that wide; Chromium's window has a least width."""
    page = folder / "frame.html"
    frame = f'<iframe style="width:{width}px;border:0" srcdoc="{html.escape(source)}"></iframe>'
    measure = f"const e = frames[0].document.querySelector('{inside}'); document.title = e.scrollWidth - e.clientWidth"
    page.write_text(f"<!doctype html><title></title>{frame}<script>onload = () => {{ {measure} }}</script>")
    document, _ = dump(page, folder, "--window-size=1400,900")
    return int(re.search("<title>(.+?)</title>", document).group(1))


@pytest.fixture(scope="module")
def source():
    """The page of three runs, every name in it as long as can be."""
    arrays = classification()
    arrays["posterior"][f"{LONG}.kernel"] = arrays["posterior"].pop("layer_0.kernel")
    arrays["posterior"][f"{LONG}.kernel"][0] += np.linspace(0, 3, 20).reshape(5, 4)  # among the worst
    arrays["layers"] = {LONG: 20, "layer_0": 4, "layer_1": LAYERS["layer_1"]}
    arrays["sample_stats"]["virial"] = 1.5 * np.random.default_rng(0).chisquare(list(arrays["layers"].values()), (4, 120, 3))
    arrays["attrs"]["data"] = f"{LONG}.py:{LONG}"
    return page_of((LONG, arrays), (f"{LONG}_sgld", classification(1, error=8)), (f"{LONG}_ensemble", ensemble(2)))


def test_it_is_quiet_and_asks_for_nothing(source, tmp_path):
    page = tmp_path / "report.html"
    page.write_text(source)
    assert browse(page, tmp_path) == ([], [])


def test_noise_and_requests_would_be_seen_and_its_policy_forbids_them(source, tmp_path):
    page = tmp_path / "page.html"
    noisy = source.replace("</body>", '<img src="http://outside.invalid/x.png"><script>console.error("loud")</script></body>')
    page.write_text(re.sub(r"<meta http-equiv=[^\n]*\n", "", noisy))
    messages, asked = browse(page, tmp_path)
    assert "loud" in messages[0]
    assert asked == ["http://outside.invalid/x.png"]
    page.write_text(noisy)
    messages, asked = browse(page, tmp_path)
    assert len(messages) == 2
    assert all("Content Security Policy" in message for message in messages)
    assert asked == []


def test_the_widest_numbers_of_the_table_of_layers_are_whole_on_a_desktop(tmp_path):
    """What is left of a percentage without its last column's sign is another number."""
    source = page_of(("run", classification()))
    table, widest = re.compile(r'<table class="layers">.*?</table>', re.DOTALL), "> 99.99 %,\nat most &gt; 99.99 %"
    assert table.search(source).group().count("at most") == 8
    wide = table.sub(lambda found: re.sub(r"[^>]*,\nat most [^<]*", widest, found.group()), source)
    assert overflow(wide, 1200, tmp_path, ".scroll:has(.layers)") == 0
    assert overflow(wide.replace("at most", "at the very most of all"), 1200, tmp_path, ".scroll:has(.layers)") > 0


@pytest.mark.parametrize("width", [360, 420, 800, 1200])
def test_it_does_not_scroll_sideways(width, source, tmp_path):
    assert overflow(source, width, tmp_path) == 0


@pytest.mark.parametrize("width", [360, 1200])
def test_what_was_measured_does_not_scroll_it_sideways(width, tmp_path):
    measures = measured.everything()
    basins = measures["basins"].tree
    basins["regions"] = basins["regions"].to_dataset().assign_coords(region=[LONG, "1", "2"])
    basins.attrs["classifier"] = LONG
    assert overflow(page_with(measures), width, tmp_path) == 0


@pytest.mark.parametrize("width", [360, 1200])
def test_a_suite_s_page_does_not_scroll_sideways(width, tmp_path):
    shares = {"shares": [0.25] * 4, "mean": 1.0}
    entropies = {
        "edges": [0, 1, 2, 3, 4],
        "sets": {LONG: {LONG: shares, "b": shares}, "c": {LONG: shares}},
        "left_out": {LONG: LONG},
    }
    wide = Picture(
        "t", "c", (), lambda _: {}, lambda _: Drawing([Shown("", Markup(), Markup('<img class="picture" width="2000">'))])
    )
    pictures = (Pictured(Picture("t", "c", (), lambda _: entropies, draw_entropies), entropies), Pictured(wide, {"an": "image"}))
    rows = {LONG: Estimate(0.1, -0.1, 0.2), "far": Estimate(1e4, 1e3, 2e4), "c": Estimate(0.1, 0.0, 0.2)}
    exhibit = Exhibit(LONG, LONG[:20], rows, (0.0,), (-0.1, 0.1))
    claims = tuple(Judgement(Finding(f"H {i}", "hypothesis", "supported", note=LONG), (exhibit,)) for i in range(9))
    one = Hypothesis("H", LONG, LONG, LONG, {}, {})
    page = write_suite_report(Suite("s", "t", LONG, (one,)), SuiteFolder(tmp_path), [Judged(one, "supported", claims, pictures)])
    assert overflow(page.read_text(), width, tmp_path) == 0


def test_a_wide_page_would_be_seen(source, tmp_path):
    assert overflow(source.replace("</main>", '<svg width="1300"></svg></main>'), 1200, tmp_path) > 0
