"""`asymflow batch --ray`: every row once, with the pixels of a local job, whatever is lost."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asymflow.bulk import run as runs
from asymflow.bulk.manifest import manifest
from asymflow.bulk.pictures import Settings
from asymflow.bulk.pool import Event, Note
from asymflow.bulk.run import Order, Progress, Report
from asymflow.cli import main
from asymflow.core.errors import InputError
from asymflow.generation.resolve import GenerateOptions
from asymflow.integrations.ray import PictureBatch
from asymflow.integrations.ray.actors import Actors, Share
from tests.bulk.conftest import errors, hashes, some, write

from .conftest import Nodes

SETTINGS = Settings("free", defaults=GenerateOptions(steps=2, seed=0))


def order(rows: list[dict[str, object]], out: str) -> Order:
    write(Path("m.jsonl"), rows)
    return Order(manifest("m.jsonl"), SETTINGS, Path(out), "imagefolder", 1)


def nothing(progress: Progress) -> None:
    pass


def made(
    order: Order,
    note: Callable[[str], None] = print,
    advance: Callable[[Progress], None] = nothing,
) -> Report:
    """A job by two actors."""

    def pool(order: Order) -> Actors:
        return Actors(order.settings, "auto", 2)

    return runs.run(order, pool=pool, note=note, advance=advance)


@pytest.mark.slow
def test_actors_make_the_pixels_of_processes_and_survive_what_rows_do(nodes: Nodes) -> None:
    rows = some(30, tag=1)
    rows[5]["prompt"] = f"once {Path('marker').absolute()}"
    expected = order(rows, "local")
    assert runs.run(expected, note=print, advance=nothing).complete
    Path("marker").unlink()
    rows.append({"id": "deadly", "prompt": "kill", "size": 32})
    report = made(order(rows, "out"))
    assert report.progress.made == 30
    assert hashes(Path("out")) == hashes(Path("local"))
    [failed] = errors(Path("out"))
    assert failed["id"] == "deadly"
    assert "ended, 2 at least" in failed["error"]
    assert report.lost >= 3  # more where an answer is lost, or an actor is only out of reach
    assert sum(each.rows for each in report.processes) == 30
    assert nodes.ray.is_initialized()  # it was not the job's own


@pytest.mark.slow
def test_a_node_that_is_lost_takes_no_row_with_it(nodes: Nodes) -> None:
    rows = some(60)
    for row in rows:
        row["prompt"] = f"slow {row['prompt']}"
    lost: list[Any] = []
    notes: list[str] = []

    def advance(progress: Progress) -> None:
        if progress.workers == 2 and progress.made >= 4 and not lost:
            node = nodes.cluster.worker_nodes.copy().pop()
            nodes.lose(node)
            lost.append(node)
            nodes.add()

    report = made(order(rows, "out"), notes.append, advance)
    assert report.complete
    assert report.lost == 1
    assert len(hashes(Path("out"))) == 60
    assert notes == [
        "An actor was lost: its node is gone or out of reach. Another one takes its rows."
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data warns of its own defaults
def test_ray_data_makes_the_same_pictures_with_two_actors_on_two_cpus(nodes: Nodes) -> None:
    rows = some(20, tag=2)
    runs.run(order(rows, "local"), note=print, advance=nothing)
    data = importlib.import_module("ray.data")
    data.DataContext.get_current().enable_progress_bars = False
    # Actors may be spread over the nodes, and reading has to find room beside one of them.
    found = data.read_json("m.jsonl", num_cpus=0.5).map_batches(
        PictureBatch,
        fn_constructor_args=("free",),
        fn_constructor_kwargs={"steps": 2},
        compute=data.ActorPoolStrategy(size=2),
        num_cpus=0.5,
        batch_size=5,
    )
    taken = found.take_all()
    assert {each["id"]: each["sha256"] for each in taken} == hashes(Path("local"))
    assert {each["error"] for each in taken} == {None}


@pytest.mark.slow
def test_actors_without_room_wait_and_say_so(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="has 1 CPU and 1 GPU"):
        Actors(SETTINGS, "auto", None, gpus=1)
    monkeypatch.setattr("asymflow.integrations.ray.actors._WAITING", 0.0)
    actors = Actors(SETTINGS, "auto", 1, gpus=1)
    said: list[Event] = []
    while not said:
        said += actors.events(0.05)
    assert said == [
        Note(
            "No node has had room for an actor for 0 s. Each takes 1 CPU and 1 GPU, and 2 CPU and "
            "0 GPU are free."
        )
    ]
    actors.close()


def test_shares_of_nodes() -> None:
    room: dict[str, float] = {"CPU": 8, "GPU": 3}
    assert Share(1, 0).within(room) == 8
    assert Share(0.1, 0).within(room) == 80
    assert Share(1, 0.5).within(room) == 6
    assert Share(1, 0.4).within(room) == 6  # two share a GPU, and a fifth of it stays free
    assert Share(1, 2).within(room) == 1
    assert Share(0, 1).within(room) == 3
    assert Share(4, 1).within(room) == 2
    assert Share(1, 1).within({"CPU": 8}) == 0


def test_a_cluster_that_is_not_there_and_options_without_one(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    write(here / "m.jsonl", some(1))
    words = "batch m.jsonl -o out --model free --steps 2".split()
    assert main.run([*words, "--ray", "127.0.0.1:9"]) == 2
    assert "There is no Ray cluster at '127.0.0.1:9'" in capsys.readouterr().err
    assert main.run([*words, "--gpus-per-worker", "1"]) == 2
    assert "are for --ray" in capsys.readouterr().err


def test_ray_that_is_not_installed(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    write(here / "m.jsonl", some(1))
    assert main.run("batch m.jsonl -o out --model free --steps 2 --ray auto".split()) == 2
    assert "pip install '.[ray]'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_on_a_cluster_of_its_own(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    write(here / "m.jsonl", some(6))
    words = "batch m.jsonl -o out --model free --steps 2 --ray local --workers 1 --json"
    assert main.run(words.split()) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["rows"] == {"made": 6, "skipped": 0, "failed": 0}
    assert len(hashes(here / "out")) == 6
    assert np.isclose(sum(each["rows"] for each in said["processes"]), 6)
