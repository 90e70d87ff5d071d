"""The one string that names a model and its options: parsed, checked, and what of it is a run's identity."""

import asyncio
import inspect
import json
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scripted_server import said, scripted

from armap_lite import llms
from armap_lite.llms import parse_spec
from armap_lite.llms.local import LocalLM
from armap_lite.llms.server import ServerLM
from armap_lite.llms.spec import LOCAL_OPTIONS, SERVER_OPTIONS, check, identity, label
from armap_lite.pipeline.commands import main
from armap_lite.pipeline.run import Run
from armap_lite.pipeline.run_dir import comparable
from armap_lite.storage import assets

URL = "http://127.0.0.1:8000/v1#m"


@pytest.mark.parametrize(
    ("written", "source", "options"),
    [
        ("smollm2-135m-instruct", "smollm2-135m-instruct", {}),
        ("smollm dtype=float32 capacity=8192", "smollm", {"dtype": "float32", "capacity": 8192}),
        ("/models/my best one", "/models/my best one", {}),
        ("/models/my best one dtype=float32", "/models/my best one", {"dtype": "float32"}),
        ("/models/a=1 b", "/models/a=1 b", {}),
        ("/a x=1 b", "/a x=1 b", {}),  # not at the end
        (f"  {URL}  timeout=0.5 ", URL, {"timeout": 0.5}),
        (f'{URL} extra={{"k": -1, "a b": "c d=1"}} retries=2', URL, {"extra": {"k": -1, "a b": "c d=1"}, "retries": 2}),
        (f'{URL} extra={{"stop": ["\\n", "x y"]}}', URL, {"extra": {"stop": ["\n", "x y"]}}),
        (f'{URL} structured="none" extra=null', URL, {"structured": "none", "extra": None}),
        ("m device=cuda:1 dtype=3abc", "m", {"device": "cuda:1", "dtype": "3abc"}),
        ("https://h/openai/v1?api-version=1#m a=b=c", "https://h/openai/v1?api-version=1#m", {"a": "b=c"}),
        ("m name=", "m", {"name": ""}),
    ],
)  # fmt: skip
def test_options_are_what_stands_at_the_end(written, source, options):
    assert parse_spec(written) == (source, options)


def test_a_path_that_exists_is_not_split(tmp_path, monkeypatch):
    (tmp_path / "a b=c").mkdir()
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    for place in ("a b=c", str(tmp_path / "a b=c")):
        assert parse_spec(place) == (place, {})
        assert parse_spec(f"{place} dtype=float32 pack=9") == (place, {"dtype": "float32", "pack": 9})
    assert parse_spec("a b=d") == ("a", {"b": "d"})


scalars = st.none() | st.booleans() | st.integers() | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
names = st.from_regex("[a-z_][a-z0-9_]{0,8}", fullmatch=True)


@given(st.sampled_from([URL, "smollm", "/my models/x y"]), st.dictionaries(names, values, max_size=4))
@example("m", {"extra": {"a": '}" ]= b=1'}})
def test_any_json_value_comes_back(source, options):
    written = " ".join([source, *(f"{name}={json.dumps(value)}" for name, value in options.items())])
    assert parse_spec(written) == (source, options)


def test_broken_json_is_named():
    with pytest.raises(ValueError, match=r'extra is .\{"top_k": -1., which is no valid JSON'):
        parse_spec(f'{URL} extra={{"top_k": -1')


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (URL, "https://elsewhere:9/v1#m", True),
        (URL, f"{URL} concurrency=4 timeout=9 retries=1 api_key_env=K", True),
        (f"{URL} samples=9 structured=none", f"{URL} structured=none  samples=9", True),
        (URL, "http://127.0.0.1:8000/v1#n", False),
        (URL, "http://127.0.0.1:8000/v2#m", False),
        ("https://h/v1?api-version=1#m", "https://i/v1?api-version=1#m", True),
        ("https://h/v1?api-version=1#m", "https://h/v1?api-version=2#m", False),
        (URL, f"{URL} structured=none", False),
        (URL, f'{URL} extra={{"top_k": 5}}', False),
        ("m device=cuda capacity=9", "m", True),
        ("m dtype=float32", "m", False),
    ],
)
def test_identity_is_what_results_depend_on(one, other, same):
    assert (identity(one) == identity(other)) is same
    assert identity(identity(one)) == identity(one)


def test_a_saved_identity_is_that_of_the_url_an_older_version_saved():
    saved = {"policy": repr("http://old:1/v1#m"), "data_llm": "None", "seed": "0"}
    assert comparable(saved) == {"policy": repr(identity(URL)), "data_llm": "None", "seed": "0"}


def test_the_field_names_of_an_older_version_are_read():
    old = {"mirror": "True", "texts": "1", "planners": "{'mcts': {'draws': 3, 'c': 1.0}}"}
    now = {"swap_roles": "True", "num_drafts": "1", "planners": "{'mcts': {'num_action_samples': 3, 'c': 1.0}}"}
    old["reward"], now["reward"] = (
        "RewardConfig(keep=12, train='top:6')",
        "RewardConfig(num_layers=12, trainable='top:6')",
    )
    assert comparable(old) == comparable(now) == now


def test_results_name_the_model_and_what_changes_them():
    assert label(f"{URL} concurrency=4") == "m"
    assert label(f'{URL} structured=none extra={{"top_k": 5}}') == 'm extra={"top_k": 5} structured=none'
    assert label("smollm dtype=float32 device=cpu") == "smollm dtype=float32"


@pytest.mark.parametrize(
    ("written", "known"),
    [(f"{URL} colour=red", ["concurrency", "extra"]), ("smollm colour=red", ["device", "dtype", "capacity"])],
)
def test_an_unknown_option_is_named_with_the_known_ones_before_all_else(written, known, tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "resolve_model", lambda spec: pytest.fail("loaded before the options were checked"))
    for use in (llms.load, lambda spec: Run("game24", "fast", tmp_path, policy=spec)):
        with pytest.raises(TypeError, match="colour") as caught:
            use(written)
        assert all(name in str(caught.value) for name in known)
    with pytest.raises(TypeError, match=r"colour.*dtype"):
        Run("game24", "fast", tmp_path, reward="smollm colour=red")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "named", "options"),
    [(ServerLM, {"base_url", "model"}, SERVER_OPTIONS), (LocalLM, {"model", "tokenizer"}, LOCAL_OPTIONS)],
)
def test_every_option_of_a_model_can_be_given(kind, named, options):
    elsewhere = {"device", "dtype"} if kind is LocalLM else set()
    assert inspect.signature(kind).parameters.keys() - named == set(options) - elsewhere


@pytest.mark.parametrize(
    "bad", ["concurrency=0", "concurrency=many", "timeout=0", "retries=-1", "extra=7", "samples=0"]
)
def test_a_value_that_cannot_be_is_named(bad):
    with pytest.raises(ValueError, match=rf"{bad.split('=')[0]} is .*must be"):
        llms.load(f"{URL} {bad}")


@pytest.mark.parametrize(
    "place", ["http://h/v1?api-key=SECRET#m", f'{URL} extra={{"api_key": "SECRET"}}', "http://u:SECRET@h/v1#m"]
)
def test_a_key_is_refused_where_it_would_be_written_down(place, tmp_path):
    for use in (llms.load, lambda spec: Run("game24", "fast", tmp_path, policy=spec)):
        with pytest.raises(ValueError, match="OPENAI_API_KEY") as caught:
            use(place)
        assert "SECRET" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_options_of_the_string_reach_the_model():
    lm = llms.load(f'{URL} concurrency=4 structured=none extra={{"top_k": -1}}', samples=3, concurrency=9)
    assert (lm.concurrency, lm.structured, lm.extra, lm.samples, lm.name) == (4, "none", {"top_k": -1}, 3, "m")


def test_parsing_loads_no_model_library():
    code = "import sys; from armap_lite.llms import parse_spec; sys.exit(bool({'torch', 'openai'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_goes_on_when_the_server_has_moved_and_not_with_another_model(tmp_path):
    sizes = {"collect_tasks": 1, "samples": 1, "num_proposals": 0}
    for _ in range(2):
        with scripted(said(lambda request: request["prompt"].splitlines()[1])) as server:
            spec = f"{server.url}#m endpoint=completions structured=none scoring=none"
            run = Run("game24", "fast", tmp_path, policy=f"{spec} timeout=9", **sizes)
            asyncio.run(run.collect())
            asked = len(server.seen)
    assert asked == 0  # all was there
    assert "127.0.0.1" not in run.path("run.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="was made with policy="):
        Run("game24", "fast", tmp_path, policy=spec.replace("#m", "#other"), **sizes)


def test_the_llm_that_writes_instructions_may_be_another_one(tmp_path):
    run = Run("game24", "fast", tmp_path / "a", policy=URL, data_llm=f"{URL} samples=3")
    assert (run.lm.samples, run.data_lm.samples) == (8, 3)
    run = Run("game24", "fast", tmp_path / "b", policy=URL, data_llm=URL)
    assert run.data_lm is run.lm


def test_options_of_a_reward_model_stay_with_the_run(tmp_path):
    run = Run("game24", "fast", tmp_path, reward="my backbone dtype=float32 capacity=64")
    assert run.settings.reward.backbone == "my backbone"
    assert run.reward_options == {"dtype": "float32", "capacity": 64}
    (tmp_path / "game24/trajectories.jsonl").touch()
    Run("game24", "fast", tmp_path, reward="my backbone dtype=float32 capacity=128")
    with pytest.raises(ValueError, match="reward_options='dtype=float32'"):
        Run("game24", "fast", tmp_path, reward="my backbone")


def test_the_command_line_names_a_wrong_option_in_one_line(tmp_path, capsys):
    command = ["reproduce", "--env", "game24", "--out", str(tmp_path), "--data-llm", f"{URL} colour=red"]
    assert main(command) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: unknown option 'colour'") and "concurrency" in line


@pytest.mark.parametrize("name", ["x-api-key", "client_secret", "openai_api_key", "code"])
def test_a_key_under_another_name_is_refused(name):
    for spec in (f"http://h/v1?{name}=1#m", f'http://h/v1#m extra={{"{name}":1}}'):
        with pytest.raises(ValueError, match="environment variable"):
            check(spec)
