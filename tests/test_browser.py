"""A real JupyterLab in a headless Chromium: what a reader sees, clicks and types. Screenshots go to runs/screenshots/.

Needs the package playwright and a Chromium: one on the PATH, one that ARMAP_LITE_CHROMIUM names, or playwright's own.
ARMAP_LITE_BROWSER_FULL=1 also runs the notebooks 00 and 05 as a reader would, which takes several minutes.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from armap_lite.course import slides

pytestmark = pytest.mark.slow

sync_api = pytest.importorskip("playwright.sync_api", reason="the browser tests need 'pip install playwright'")

ROOT = Path(__file__).resolve().parent.parent
SCREENSHOTS = ROOT / "runs" / "screenshots"
TOKEN = "of-the-tests"
PATIENCE = 180_000  # ms; two busy cores may need a minute to import torch
sync_api.expect.set_options(timeout=60_000)
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},  # all cells stay on the page
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
CELLS = """
from tests.test_widgets import *
from tests.tiny import tiny_network, tiny_tokenizer
from armap_lite.reward.scorer import RewardModel
reward = RewardModel(*tiny_network())
tree = await planned("mcts", {"rollouts": 12}, reward)
tasks = [TASK] + [puzzle(1, n, 2, n + 3, id=str(n)) for n in range(4, 12)]
several = [await planned("best_of_n", {"n": 8}, reward, task) for task in tasks]
golds = {plan.id: [float(" + " in s.trajectory.actions[0]) for s in plan.samples] for plan in several}
---
explore_pairs(PAIR, reward)
---
play(Game24(), tasks, reward, [tree, *several])
---
explore_tree(tree)
---
explore_best_of_n(several, golds)
---
explore_weights(several, {"additions": actions_like(r" [+] "), "divisions": actions_like(" / ")}, golds)
---
Image.new("RGB", (320, 240), "#0072B2").save("cup.png")
Shop.picture = "cup.png"
shop = Task("t", "webshop", "test", "find me a cup " + HOSTILE)
play(Shop(), shop, reward)
---
play(envs.make("webshop", folder=make_shop(Path("files"))), Task("t", "webshop", "test", "find a lamp"), reward)
---
explore_temperature(at_temperatures([3, 1, 2, 0], 0.5, 1.0, 2.0, 4.0))
---
print("all", "done")
"""

# The menu would do the same, but a click on it before the kernel is there opens a dialog, or does nothing.
RUN_ALL = """async () => {
  await jupyterapp.restored;
  const panel = [...jupyterapp.shell.widgets("main")].find(widget => widget.sessionContext);
  await panel.context.ready;
  await panel.sessionContext.ready;
  await panel.sessionContext.session.kernel.info;
  jupyterapp.shell.activateById(panel.id);
  jupyterapp.commands.execute("notebook:run-all-cells");
}"""


def chromium() -> str | None:
    """The Chromium to drive, None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome", "chrome-headless-shell")
    found = os.environ.get("ARMAP_LITE_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        with sync_api.sync_playwright() as playwright:
            own = playwright.chromium.executable_path
        found = own if Path(own).is_file() else None
    return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a JupyterLab and the folder it serves; it and its kernels end with the tests."""
    if chromium() is None:
        missing = "no Chromium found: install one, or name it in ARMAP_LITE_CHROMIUM"
        pytest.fail(missing) if os.environ.get("ARMAP_LITE_BROWSER_FULL") else pytest.skip(missing)
    home = tmp_path_factory.mktemp("lab")
    served, settings = home / "served", home / "settings"
    served.mkdir()
    for name, values in SETTINGS.items():
        file = settings / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython"}
    own |= {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    environment = os.environ | {name: str(home / folder) for name, folder in own.items()}
    environment |= {"JUPYTER_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"]
    command += [f"--ServerApp.root_dir={served}", "--LabApp.expose_app_in_browser=True"]
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with open(home / "log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=served, start_new_session=True)
    try:
        yield wait_for(server, home), served
    finally:
        server.send_signal(signal.SIGTERM)  # ends its kernels as well
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wait_for(server: subprocess.Popen, home: Path) -> str:
    """The server's address, once it answers."""
    for _ in range(240):
        assert server.poll() is None, (home / "log").read_text(encoding="utf-8")
        for file in (home / "runtime").glob("jpserver-*.json"):  # there a little before the server listens
            with contextlib.suppress(OSError, ValueError):
                url = json.loads(file.read_text(encoding="utf-8"))["url"]
                urllib.request.urlopen(f"{url}api?token={TOKEN}", timeout=10).close()
                return url
        time.sleep(0.5)
    raise AssertionError((home / "log").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = chromium()  # before Playwright runs here: it looks for its own browser with a Playwright of its own
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=PATIENCE)
        yield browser
        browser.close()


def open_notebook(browser: Any, lab: tuple[str, Path], name: str) -> Any:
    """A page that shows notebook `name`, in a window of its own."""
    page = browser.new_page(viewport={"width": 1280, "height": 1800})
    page.set_default_timeout(PATIENCE)
    page.goto(f"{lab[0]}lab/workspaces/{Path(name).stem}/tree/{name}?token={TOKEN}")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    return page


def run_all(page: Any, cells: int, limit: int = PATIENCE) -> None:
    """Give JupyterLab its command "Run All Cells" and wait until each of the `cells` code cells has run."""
    page.evaluate(RUN_ALL)
    broken = page.locator(".jp-RenderedText").filter(has_text="Traceback (most recent call last)")
    for _ in range(limit // 500):
        assert not broken.count(), broken.first.inner_text()
        prompts = page.locator(".jp-InputPrompt").all_inner_texts()
        if sum(bool(re.search(r"\[\d+\]", prompt)) for prompt in prompts) == cells:
            return
        page.wait_for_timeout(500)
    raise AssertionError(f"after {limit / 1000:.0f} s the cells stand at {prompts}")


@pytest.fixture(scope="module")
def page(browser: Any, lab: tuple[str, Path]) -> Any:
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in CELLS.split("---\n")]
    book = nbformat.v4.new_notebook(cells=cells, metadata=KERNEL)
    nbformat.write(book, lab[1] / "widgets.ipynb")
    page = open_notebook(browser, lab, "widgets.ipynb")
    run_all(page, len(cells))
    sync_api.expect(page.get_by_text("all done", exact=True)).to_be_visible()
    sync_api.expect(page.locator(".armap")).to_have_count(8)
    return page


def test_the_speaker_s_window_follows_the_slides_and_turns_them(browser: Any, tmp_path: Path):
    folder = tmp_path / "run/game24/notebooks"
    folder.mkdir(parents=True)
    cells = [
        nbformat.v4.new_markdown_cell(f"# Part {k}\n\nSaid {k}.", metadata={"slideshow": {"text": f"# Part {k}"}})
        for k in range(3)
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "00_deck.ipynb")
    slides.write_slides(tmp_path / "run", tmp_path / "out", "game24")
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.goto((tmp_path / "out/00_deck.html").as_uri())
    sync_api.expect(page.get_by_text("Said 0.")).to_be_hidden()
    with page.expect_popup() as popup:
        page.keyboard.press("n")
    speaker = popup.value
    sync_api.expect(speaker.get_by_text("Said 0.")).to_be_visible()
    page.keyboard.press("ArrowRight")
    sync_api.expect(speaker.get_by_text("Said 1.")).to_be_visible()
    speaker.keyboard.press("ArrowRight")
    sync_api.expect(speaker.get_by_text("Said 2.")).to_be_visible()
    sync_api.expect(page.get_by_role("heading", name="Part 2")).to_be_in_viewport()


def test_a_reader_sees_the_cells_of_one_world(browser: Any, lab: tuple[str, Path]):
    code = nbformat.v4.new_code_cell

    def text(label: str) -> Any:
        return nbformat.v4.new_markdown_cell(f'<b class="{label}">A world.</b> Words.')

    cells = [code("from armap_lite.display.cells import show_world\nshow_world('webshop')")]
    cells += [text("world-game24 with-code"), code("1"), code("2")]
    cells += [text("world-scienceworld world-webshop"), text("world-game24")]
    book = nbformat.v4.new_notebook(cells=cells, metadata=KERNEL)
    nbformat.write(book, lab[1] / "worlds.ipynb")
    page = open_notebook(browser, lab, "worlds.ipynb")
    run_all(page, 3)
    visible = [page.locator(".jp-Cell").nth(i).is_visible() for i in range(len(cells))]
    assert visible == [True, False, False, True, True, False]
    assert page.locator(".jp-Cell").nth(4).inner_text().strip() == "Words."


def widget(page: Any, n: int) -> Any:
    found = page.locator(".armap").nth(n)
    found.scroll_into_view_if_needed()
    return found


def picture(box: Any, words: str) -> None:
    """Wait until `box` shows a picture whose alternative text has these words."""
    sync_api.expect(box.locator(f'img[alt*="{words}"]')).to_be_visible()


def keep(box: Any, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    box.screenshot(path=SCREENSHOTS / f"{name}.png")
    assert (SCREENSHOTS / f"{name}.png").stat().st_size > 5_000


def press(box: Any, label: str, *keys: str) -> None:
    """Move the slider called `label` with the keyboard."""
    row = box.locator(".widget-slider", has=box.page.get_by_text(label, exact=True))
    handle = row.locator(".noUi-handle")
    handle.focus()
    for key in keys:
        handle.press(key)


def test_a_pair_is_stepped_through_with_the_keyboard(page):
    box = widget(page, 0)
    sync_api.expect(box.locator("tr.marked")).to_have_count(1)
    keep(box, "pairs-step-2")
    press(box, "Step", "ArrowRight")
    sync_api.expect(box.locator("tr.marked")).to_have_count(2)
    picture(box, "Reward after 3 steps")
    keep(box, "pairs-step-3")
    press(box, "Step", "Home")
    sync_api.expect(box.locator("tr.marked")).to_have_count(0)


def test_a_puzzle_is_played_by_mouse_and_keyboard_and_compared(page):
    box = widget(page, 1)
    box.get_by_label("Filter").fill("= 12")
    options = box.get_by_label("Action", exact=True).locator("option")
    sync_api.expect(options).to_have_text(["8 + 4 = 12"])
    box.get_by_label("Action", exact=True).select_option("8 + 4 = 12")
    keep(box, "play-list")
    box.get_by_role("button", name="Do it").press("Enter")
    picture(box, "Reward after 1 step:")
    sync_api.expect(box.get_by_label("Filter")).to_be_focused()  # so the keyboard alone goes on
    page.keyboard.type("6 - 4 =")
    sync_api.expect(options).to_have_text(["6 - 4 = 2"])
    for key in ("Tab", "Tab", "Enter"):  # past the list, whose arrow keys JupyterLab takes, to the button
        page.keyboard.press(key)
    sync_api.expect(box.get_by_role("button", name="12 + 2 = 14")).to_be_focused()
    box.get_by_role("button", name="12 * 2 = 24").click()
    sync_api.expect(box.get_by_text("The episode is over.")).to_be_visible()
    box.get_by_role("button", name="Compare with the planners").click()
    sync_api.expect(box.locator("tr.marked", has_text="you")).to_be_visible()
    picture(box, "Planners: mcts")
    keep(box, "play-compared")
    box.get_by_role("button", name="Undo").click()
    sync_api.expect(box.get_by_role("button", name="12 * 2 = 24")).to_be_visible()


def test_a_tree_grows_with_its_slider(page):
    box = widget(page, 2)
    picture(box, "After attempt 1 of 12")
    press(box, "Attempt", "ArrowRight", "ArrowRight")
    picture(box, "After attempt 3 of 12")
    keep(box, "tree-attempt-3")
    press(box, "Attempt", "End")
    picture(box, "After attempt 12 of 12")
    sync_api.expect(box.locator("table tr").nth(1).locator("td").nth(1)).to_have_text("12")
    keep(box, "tree-attempt-12")


def test_n_is_moved_and_the_choice_with_it(page):
    box = widget(page, 3)
    sync_api.expect(box.locator("table tr")).to_have_count(9)
    keep(box, "best-of-8")
    press(box, "N", "ArrowLeft", "ArrowLeft", "ArrowLeft")
    picture(box, "N = 5:")
    sync_api.expect(box.locator("table tr")).to_have_count(6)
    sync_api.expect(box.locator("tr.marked", has_text="reward model")).to_have_count(1)
    keep(box, "best-of-5")


def test_weights_are_moved_and_the_frontier_with_them(page):
    box = widget(page, 4)
    before = box.locator("img").get_attribute("alt")
    keep(box, "weights-0")
    press(box, "λ additions", "End")
    sync_api.expect(box.locator("img")).not_to_have_attribute("alt", before)
    keep(box, "weights-end")


def test_a_hostile_product_stays_text_in_the_shop(page):
    box, name = widget(page, 5), "<script>document.title='pwned'</script>"
    title = page.title()
    sync_api.expect(box.locator("b").first).to_have_text(
        f"find me a cup {name}<img src=x onerror=\"document.title='pwned'\">"
    )
    box.get_by_label("Search").fill("red cup")
    box.get_by_role("button", name="Search").click()
    box.get_by_role("button", name=name).click()  # the product
    sync_api.expect(box.locator('img[alt="the picture of this page"]')).to_be_visible()
    box.get_by_role("button", name="Blue").click()
    sync_api.expect(box.get_by_role("button", name="✓ Blue")).to_be_visible()
    sync_api.expect(box.get_by_text(f"{name}<img src=x onerror=\"document.title='pwned'\"> for tea")).to_be_visible()
    keep(box, "shop-item")
    box.get_by_role("button", name="Buy Now").click()
    sync_api.expect(box.get_by_text("The episode is over.")).to_be_visible()
    keep(box, "shop-bought")
    assert page.title() == title and "pwned" not in title
    assert page.locator(".armap script").count() == 0 and page.locator('.armap img[src="x"]').count() == 0


def test_the_temperature_is_moved_and_the_bars_with_it(page):
    box = widget(page, 7)
    picture(box, "T = 1:")
    press(box, "T", "ArrowRight", "ArrowRight")
    picture(box, "T = 4:")
    keep(box, "temperature-4")


def test_a_hostile_product_of_the_real_engine_stays_text_too(page):
    box = widget(page, 6)
    box.get_by_label("Search").fill("desk lamp")
    box.get_by_role("button", name="Search").click()
    box.get_by_role("button", name="B0LAMP0002").click()
    sync_api.expect(box.get_by_text("Desk Lamp <script>alert(1)</script>").first).to_be_visible()
    keep(box, "shop-real-item")
    assert page.locator(".armap script").count() == 0


@pytest.mark.skipif(not os.environ.get("ARMAP_LITE_BROWSER_FULL"), reason="minutes; set ARMAP_LITE_BROWSER_FULL=1")
@pytest.mark.parametrize("name", ["00_start_here", "05_plan"])
def test_a_reader_runs_the_notebook(browser, lab, name):
    folder, done = lab[1] / "notebooks", ROOT / "runs/fast/game24"
    folder.mkdir(exist_ok=True)
    shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", folder)
    if done.is_dir():  # after `make reproduce` the stages need not be done over
        shutil.copytree(done, lab[1] / "runs/fast/game24", dirs_exist_ok=True)
    cells = sum(cell.cell_type == "code" for cell in nbformat.read(folder / f"{name}.ipynb", 4).cells)
    page = open_notebook(browser, lab, f"notebooks/{name}.ipynb")
    run_all(page, cells, limit=25 * 60_000)
    keep(page.locator(".jp-Notebook"), name)
    if name == "00_start_here":
        sync_api.expect(page.get_by_text(re.compile(r"true score of the answer: [01]\.\d\d")).first).to_be_visible()
        sync_api.expect(page.locator(".jp-RenderedImage img").last).to_be_visible()  # the reward of each attempt
        page.get_by_text("This figure in words").last.click()
        words = page.locator("details[open]", has_text="This figure in words").last
        sync_api.expect(words).to_have_text(re.compile(r"reward of \d+ attempts.*[0-9]\.[0-9]", re.DOTALL))
    if name == "05_plan":
        tree, game = widget(page, 0), widget(page, 1)
        press(tree, "Attempt", "Home")
        picture(tree, "After attempt 1 of")
        press(tree, "Attempt", "ArrowRight")
        picture(tree, "After attempt 2 of")
        rows = game.locator("tr").count()
        game.get_by_role("button", name="Do it").click()
        sync_api.expect(game.locator("tr")).to_have_count(rows + 1)
        sync_api.expect(game.get_by_role("button", name="Undo")).to_be_enabled()
        game.get_by_role("button", name="Compare with the planners").click()
        picture(game, "Planners: ")
    for n in range(page.locator(".armap").count()):
        keep(widget(page, n), f"{name}-{n}")
    page.evaluate("Promise.all([...jupyterapp.shell.widgets('main')].map(one => one.sessionContext?.shutdown()))")
    page.close()
