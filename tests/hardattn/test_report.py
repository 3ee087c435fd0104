"""The report: what it gathers, in numbers one can redo on paper; what it refuses; and its page in a browser, driven by keys."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hardattn import cli, experiment, report, report_player, results, train_baseline
from hardattn.envs import datasets, task_data
from hardattn.envs.errors import HardattnError
from hardattn.plugins import make_agent

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
IMAGES = 400
CURVE = [{"update": k, "episodes": 100 * k, "seconds": k / 2, "validation_error": 90 / k} for k in (1, 2, 3)]


@pytest.fixture(autouse=True, scope="module")
def few_digits() -> Iterator[None]:
    """The data set is its first digits, so that measuring takes no time."""
    patch, load = pytest.MonkeyPatch(), datasets.load
    patch.setattr(datasets, "load", lambda name, split: load(name, split).take(torch.arange(IMAGES)))
    yield
    patch.undo()


def a_run(folder: Path, agent: str = "reinforce", task: str = "ram-mnist", **changes: Any) -> Path:
    """A run folder without a training: weights as they begin, and 100 of 400 images wrong, each told with 90 %."""
    baseline = agent in ("cnn", "stn")
    sets = [] if baseline or task.startswith(("dasnet", "catch")) else ["core_width=16", "glimpse_width=16", "encoder_width=16"]
    setup = (train_baseline if baseline else experiment).build(task, agent, sets=sets, seed=3, device="cpu")
    results.write_json(folder / results.CONFIG, experiment.to_json(setup))
    sha256 = "no images needed"
    if task == "ram-mnist":
        data = task_data.fixed_data(setup.task, "test")
        sha256, state = data.sha256(), {}
        if baseline:
            state["perception"] = train_baseline.make(setup, data).state_dict()  # type: ignore[arg-type]
        else:
            network = setup.perception(data)
            actor = make_agent(agent, setup.world(data, network, batch_size=1, repeats=1), config=setup.agent_config, seed=0)
            state = {"perception": network.state_dict(), "agent": actor.state_dict()}
        results.write_state(folder / results.CHECKPOINT, state)
    wrong = torch.arange(IMAGES) < 100
    probabilities = torch.full((IMAGES, 10), 0.1 / 9)
    probabilities[:, 4] = 0.9
    results.write_state(folder / results.PREDICTIONS, {"probabilities": probabilities, "wrong": wrong})
    mean = {"error": 25.0, "interval": [21.0, 29.5], "error_by_look": [80.0, 25.0], "on_target_by_look": [40.0, 60.0]}
    final = {"task": task, "agent": agent, "seed": 3, "protocols": {"mean": mean}, "images": IMAGES, "processed_pixels": 384.0}
    final |= {"unique_pixels": 200.5, "seconds": 1.5, "flops_per_image": 2e6, "parameters": 1234, "episodes": 300}
    results.write_json(folder / results.FINAL, final | {"test_sha256": sha256, "command": "hardattn train <it>"} | changes)
    for row in CURVE:
        results.append_line(folder / results.CURVE, row)
    return folder


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that the command says when it refuses."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", *map(str, arguments)])
    assert ended.value.code in (1, 2)
    said = capsys.readouterr().err.strip()
    assert "\n" not in said and "Traceback" not in said
    return said


def test_rows_hold_what_the_folder_holds(tmp_path: Path) -> None:
    data = report.gather([str(a_run(tmp_path / "a"))], count=2)
    (row,) = data["runs"]
    assert (row["label"], row["kind"]) == ("reinforce, seed 3", "agent")
    assert (row["error"], row["interval"], row["on_target"], row["validation_error"]) == (25.0, [21.0, 29.5], 50.0, None)
    assert row["curve"] == [[100, 0.5, 90.0], [200, 1.0, 45.0], [300, 1.5, 30.0]] and row["spoiled"] == 0
    assert row["calibration"]["error"] == pytest.approx(0.15)  # sure by 0.90, right by 0.75
    assert [line for line in row["calibration"]["bins"] if line[0]] == [[400, 0.9, 0.75]]
    assert data["test_images"] == IMAGES and data["player"]["index"] == [0, 1, *range(2, 22)]  # of the wrong ones 20 more


def test_looks_are_where_the_agent_looked(tmp_path: Path) -> None:
    """The centre of 28 x 28 is between pixels 13 and 14, and a patch of 8 reaches from edge 10 to edge 18, as hard_glimpse cuts."""
    data = report.gather([str(a_run(tmp_path / "c", "centre")), str(a_run(tmp_path / "s", "stn"))], count=1)
    centre, stn = (row["looks"] for row in data["runs"])
    assert centre["path"][0] == [[13.5, 13.5]] * 6 and centre["boxes"][0] == [[[10, 10, 18, 18]]] * 6
    assert [sum(belief) for belief in centre["beliefs"][0]] == pytest.approx([10_000] * 6, abs=5)
    assert stn["boxes"][0] == [[[0, 0, 28, 28]]] and stn["path"][0] == [[13.5, 13.5]] and stn["glimpses"] is None
    digits = task_data.fixed_data(experiment.build("ram-mnist", "centre", device="cpu").task, "test")
    assert isinstance(digits, datasets.Dataset)
    assert data["player"]["truth"][0] == [int(digits.labels[0])]
    assert data["player"]["images"][0] == report_player.png(digits.images[0])
    assert centre["glimpses"][0] == report_player.png(digits.images[0, :, 10:18, 10:18].repeat(1, 6, 1))


def test_the_player_takes_the_first_images_and_some_wrong_ones() -> None:
    first, *later = report_player.choose([np.arange(50) % 2 == 1, np.arange(50) == 48], 3, 50)
    assert [first, *later[:2]] == [0, 1, 2] and later[2:5] == [3, 5, 7] and len(later) == 22
    assert report_player.choose([], 60, 50) == list(range(50))


def test_spoiled_lines_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = a_run(tmp_path / "cnn", "cnn")
    with open(folder / results.CURVE, "ab") as file:
        file.write(b'{"update": 4, "epis\n\xff\xfe\x00\n[1, 2]\n{"episodes": 5, "seconds": 1, "validation_error": NaN}\n')
    monkeypatch.chdir(tmp_path)
    cli.main(["report", str(folder), "-o", "out/page.html"])
    said = " ".join(capsys.readouterr().err.split())
    assert "cnn, seed 3: 4 line(s) of its curve could not be read and were skipped." in said
    assert "cnn, seed 3: not in the player: cnn takes in the whole image at once." in said
    assert "Report in out/page.html (0.0 MB): open it in a browser. Next: hardattn train ram-mnist" in said
    told = embedded((tmp_path / "out/page.html").read_text())
    assert told["runs"][0]["spoiled"] == 4 and len(told["runs"][0]["curve"]) == 3 and told["player"] is None


def test_tasks_without_places_have_no_player(tmp_path: Path) -> None:
    gains = report.gather([str(a_run(tmp_path / "g", "centre", "dasnet-cifar10"))])
    assert gains["player"] is None and "filters" in gains["unplayed"] and gains["runs"][0]["calibration"]["error"] == 0.15
    games = report.gather([str(a_run(tmp_path / "p", "ppo", "catch"))])
    assert games["player"] is None and "game" in games["unplayed"] and games["runs"][0]["calibration"] is None


def test_own_classes_are_named_again(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "own")
    config = results.read_json(folder / results.CONFIG)
    results.write_json(folder / results.CONFIG, config | {"agent": "mine:Looker"})
    data = report.gather([str(folder), str(a_run(tmp_path / "b"))], count=1)
    assert "--agent mine:Looker" in data["runs"][0]["unplayed"] and data["runs"][1]["looks"]


def test_what_cannot_stand_in_a_report_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = a_run(tmp_path / "one"), a_run(tmp_path / "other", test_sha256="f" * 64)
    assert "hardattn report results/runs/ram-mnist" in refusal(capsys)
    (tmp_path / "empty").mkdir()
    assert "no runs found in" in refusal(capsys, tmp_path / "empty")
    assert "did you mean 'ram-mnist'?" in refusal(capsys, "ram-mnits")
    assert refusal(capsys, one, other).endswith(f"leave out the others: hardattn report {one}")
    assert "SHA-256 ffffffffffff" in refusal(capsys, tmp_path)  # all runs below a folder
    assert "other test images than are here" in refusal(capsys, other)
    catch = a_run(tmp_path / "catch", "ppo", "catch")
    assert refusal(capsys, one, catch).endswith(f"a report is of one task; leave out the others: hardattn report {one}")
    network = a_run(tmp_path / "network")
    results.write_json(network / results.FINAL, {"test_error": 7.0, "test_sha256": "0"})
    assert refusal(capsys, one, network).endswith(f"leave it out: hardattn report {one}")
    assert "it is a folder; wanted a file" in refusal(capsys, one, "-o", tmp_path)
    assert "--count 0" in refusal(capsys, one, "--count", 0)
    (one / results.FINAL).write_text("{")
    assert "is damaged" in refusal(capsys, one)
    (one / results.FINAL).unlink()
    sets = "--set train.episodes=3300000"  # the default, which needs no saying
    said = refusal(capsys, one)
    assert "has no final.json" in said and said.endswith(f"--out {one} --resume") and sets not in said
    assert "hardattn train ram-mnist --agent reinforce --seed 3 --set perception.encoder_width=16" in said


def test_reading_a_folder_runs_nobody_s_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strange.py").write_text("raise SystemExit('a stranger runs here')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = a_run(tmp_path / "a")
    (folder / results.FINAL).unlink()
    config = results.read_json(folder / results.CONFIG)
    for strange in ({"agent": "strange:Agent"}, {"task": config["task"] | {"name": "strange:TASK"}}):
        results.write_json(folder / results.CONFIG, config | strange)
        assert "add --resume to the command that began it" in refusal(capsys, folder)


def test_damage_is_named(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "a")
    results.write_state(
        folder / results.PREDICTIONS, {"wrong": torch.zeros(3, dtype=torch.bool), "probabilities": torch.ones(3, 10)}
    )
    with pytest.raises(HardattnError, match="tells of 3 images"):
        report.gather([str(folder)])
    results.write_json(folder / results.CONFIG, {"task": 1})
    with pytest.raises(HardattnError, match="does not fit this version"):
        report.gather([str(folder)])


def embedded(page: str) -> Any:
    """The data in a page."""
    return json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)[0])


def test_no_text_of_a_run_leaves_its_script_and_large_reports_shed_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = "</script><script>alert(1)</script><!-- & __DATA__ __TITLE__ \u2028"
    data = report.gather([str(a_run(tmp_path / "a", command=bad))], count=30) | {"task": bad}
    page = report.page(data)
    assert embedded(page)["runs"][0]["command"] == bad and "<script>alert" not in page and "<title>&lt;/script" in page
    monkeypatch.setattr(report, "LARGEST", len(page.encode()) - 1)
    told = embedded(report.page(data))
    kept = len(told["player"]["index"])
    assert kept == 50 * 3 // 4 and told["player"]["left_out"] and len(told["runs"][0]["looks"]["glimpses"]) == kept


HOOKS = "<script>window.thrown = []; window.addEventListener('error', e => thrown.push(e.message));</script>"
DRIVER = """<script>{
const told = {}, say = () => document.getElementById("now").textContent, at = id => document.getElementById(id);
const key = name => at("play").dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true, cancelable: true}));
told.bars = [...at("beliefs").tBodies[0].rows].map(row => {
  const [bar, room] = [row.querySelector(".bar"), row.cells[1]].map(node => node.getBoundingClientRect().width);
  return bar / room;
});
told.start = say(); key("ArrowRight"); told.right = say(); key("End"); told.end = say();
key("ArrowRight"); told.beyond = say();
told.dots = document.querySelectorAll("#image circle").length;
key("ArrowLeft"); told.left = say(); key("Home"); told.home = say();
at("on").click(); told.clicked = say(); at("film").children[3].firstChild.click(); told.film = say();
at("slide").value = 5; at("slide").dispatchEvent(new Event("input")); told.slid = say();
const verdict = () => at("verdict").textContent, take = k => {
  at("run").value = at("run").options[k].value; at("run").dispatchEvent(new Event("change"));
};
at("last").focus(); at("last").click(); told.focus = document.activeElement.id; at("film").children[4].firstChild.click();
told.image = verdict(); key("n"); told.next = verdict(); key("p"); told.previous = verdict();
key("w"); told.only = [at("only").checked, at("pick").options.length, verdict()]; key("w");
take(1); told.other = say(); take(0); key("Home");
const every = (css, test) => [...document.querySelectorAll(css)].filter(node => !test(node)).map(node => node.outerHTML);
const named = node => ["aria-hidden", "aria-label", "aria-labelledby"].some(key => node.getAttribute(key));
told.unnamed = [...every("button", b => b.textContent.trim()), ...every("input, select", e => e.labels.length),
  ...every("table", t => t.caption.textContent), ...every("th", t => t.scope), ...every("svg", named)];
told.wide = document.documentElement.scrollWidth > innerWidth;
told.notes = at("notes").textContent; told.lines = document.querySelectorAll("#curves polyline").length;
key(" "); told.playing = at("go").textContent;
setTimeout(() => {
  told.played = say(); told.stopped = at("go").textContent; told.thrown = thrown;
  document.body.append(Object.assign(document.createElement("pre"), {id: "told", textContent: JSON.stringify(told)}));
}, 8000);
}</script>"""


def browse(page: str, folder: Path) -> dict[str, Any]:
    """Open a copy of the page in Chromium, drive it, and return what was found; nothing may appear on the console."""
    file = folder / "driven.html"
    file.write_text(page.replace("<style>", HOOKS + "<style>", 1).replace("</body>", DRIVER + "</body>", 1))
    assert CHROMIUM
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", "--window-size=500,900"]
    options += ["--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom"]
    ended = subprocess.run([CHROMIUM, *options, file.as_uri()], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in ended.stderr, [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    (found,) = re.findall(r'<pre id="told">(.*?)</pre>', ended.stdout, flags=re.DOTALL)
    told: dict[str, Any] = json.loads(found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert told["thrown"] == [] and told["unnamed"] == [] and not told["wide"], told
    assert told["focus"] == "play"  # a button that is switched off gives its focus to the player, so keys go on working
    return told


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_page_plays_in_a_browser(tmp_path: Path) -> None:
    """The weights that ship, an untrained run and a crop of a supervised model."""
    data = report.gather(["ram-mnist", str(a_run(tmp_path / "a")), str(a_run(tmp_path / "s", "stn"))], count=12)
    page = report.page(data)
    assert re.findall(r"https?://[^\"]*", page) == ["http://www.w3.org/2000/svg"]
    told = browse(page, tmp_path)
    looks, truth = data["runs"][0]["looks"], data["player"]["truth"]
    for state, look in (
        ("start", 0),
        ("right", 1),
        ("end", 5),
        ("beyond", 5),
        ("left", 4),
        ("home", 0),
        ("clicked", 1),
        ("film", 3),
    ):
        x, y = looks["path"][0][look]
        said = int(np.argmax(looks["beliefs"][0][look]))
        # Math.round takes halves up
        wanted = f"Look {look + 1} of 6 at row {int(np.floor(y + 0.5)) + 1}, column {int(np.floor(x + 0.5)) + 1}: says {said} with "
        assert told[state].startswith(wanted), (state, told[state], wanted)
    assert told["bars"] == pytest.approx([part / 10_000 for part in looks["beliefs"][0][0]], abs=0.01)  # a pixel at the least
    assert told["dots"] == 6 and told["slid"].startswith("Look 5 of 6") and told["other"].startswith("Look 5 of 6")
    assert told["image"] == told["previous"] == f"Test image 0: the truth is {truth[0][0]}. After 6 looks the answer is 7: right."
    assert told["next"].startswith(f"Test image 1: the truth is {truth[1][0]}.")
    wrong = [n for n, (label,) in enumerate(truth) if np.argmax(looks["beliefs"][n][5]) != label]
    assert wrong and told["only"][:2] == [True, len(wrong)] and told["only"][2].endswith("wrong.")
    assert told["playing"] == "Stop" and told["stopped"] == "Play" and told["played"].startswith("Look 6 of 6")
    assert told["lines"] == 5  # two curves of learning, for none ships; three of errors by look
    assert "weights that ship" in told["notes"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_page_asks_for_several_labels_in_turn(tmp_path: Path) -> None:
    data = report.gather(["ram-mnist"], count=12)
    (run,) = data["runs"]
    said = np.array(run["looks"]["beliefs"]).argmax(axis=-1)  # [n, T]: three labels of two looks each, the last not there
    data["player"]["truth"] = [[int(row[1]), int(row[3]), -1] for row in said]
    data["player"]["truth"][3][1] = (data["player"]["truth"][3][1] + 1) % 10
    run["looks"]["each"] = 2
    run |= {"spoiled": 1, "unplayed": ""}
    told = browse(report.page(data | {"runs": [run, run | {"label": "again"}]}), tmp_path)
    assert ", for label 1 of 3: says" in told["start"] and "for label 3 of 3, nothing is left to tell" in told["end"]
    assert told["image"].endswith("is {} {}: right.".format(*data["player"]["truth"][0][:2]))
    assert told["only"][1] == 1 and "1 line of its learning curve could not be read and was skipped" in told["notes"]
