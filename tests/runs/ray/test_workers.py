"""Runs on a Ray cluster of several nodes, all of them processes of this machine."""

import os
import signal
import time
from pathlib import Path

import pytest
from tests.runs.several import command, require_once, settings, started

from unalike.errors import OptionError
from unalike.runs.ray.cluster import Room
from unalike.runs.run import run
from unalike.runs.run_settings import RunSettings
from unalike.runs.worker import Worker

ray = pytest.importorskip("ray", reason="pip install 'unalike[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray, at its own files and processes


@pytest.fixture(scope="module")
def address():
    """The head of a cluster: two nodes for workers beside it."""
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    source = str(Path(__file__).parents[3] / "src")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [source, before]))
    store = {"object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **store})
    for _ in range(2):
        cluster.add_node(num_cpus=2, object_store_memory=80 << 20)
    yield cluster.address
    cluster.shutdown()
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def processes(name: str) -> list[int]:
    """The processes of Ray with this name."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(f"ray::{name}".encode()):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_every_image_is_there_once_when_a_worker_and_the_memory_are_killed(
    tiny_sd_folder, tmp_path, address
):
    killed = []

    def kill(row):
        for name in ("MapWorker", "MemoryShard") if not killed else ():
            process = processes(name)[0]
            killed.append(process)
            os.kill(process, signal.SIGKILL)

    asked = settings(tiny_sd_folder, tmp_path, num=8, ray=address, ray_workers=4)
    outcome = run(asked, told=kill)
    assert len(killed) == 2
    assert outcome.finished
    assert outcome.failures == []
    require_once(tmp_path, num=8)
    workers = outcome.record["workers"]
    assert (workers["kind"], workers["workers"], workers["shards"]) == ("ray", 4, 1)
    assert workers["staleness"]["largest"] <= workers["staleness"]["bound"] == 16
    assert workers["staleness"]["batches"] == 16


@pytest.mark.parametrize(
    ("number", "code", "workers", "then"),
    [(signal.SIGKILL, -9, 1, {"ray_workers": 2}), (signal.SIGINT, 130, 1, {})],
)
def test_every_image_is_there_once_when_the_run_is_ended_and_gone_on_with(
    tiny_sd_folder, tmp_path, address, number, code, workers, then
):
    words = ["--ray", address, "--ray-workers", str(workers)]
    child = started(command(tiny_sd_folder, tmp_path, *words, num=8))
    child.send_signal(number)
    _, error = child.communicate(timeout=120)
    assert child.returncode == code, error
    ray_again = {"ray": address, **then} if then else {}
    assert run(settings(tiny_sd_folder, tmp_path, num=8, **ray_again)).finished
    require_once(tmp_path, num=8)
    end = time.monotonic() + 30
    while processes("MemoryShard") and time.monotonic() < end:
        time.sleep(0.1)
    assert not processes("MemoryShard")


def test_error_is_that_of_the_model_when_a_worker_cannot_open_it(tiny_sd_folder, tmp_path, address):
    with pytest.raises(OptionError, match="auto has no option 'none'"):
        run(settings(tiny_sd_folder, tmp_path, ray=address, set=("auto.none=1",)))
    with pytest.raises(OptionError, match="ray_workers is 5, and the cluster has 4 CPUs"):
        run(settings(tiny_sd_folder, tmp_path, ray=address, ray_workers=5))
    with pytest.raises(OptionError, match="ray_gpus is 1, and the cluster has 0 GPUs"):
        run(settings(tiny_sd_folder, tmp_path, ray=address, ray_gpus=1))
    assert not (tmp_path / "out").exists()


def test_cluster_is_missed_before_a_model_is_loaded_when_there_is_none(
    tiny_sd_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(Worker, "open", None)
    with pytest.raises(OptionError, match=r"ray is '127.0.0.1:1', and there is no cluster"):
        run(settings(tiny_sd_folder, tmp_path, ray="127.0.0.1:1"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("gpus", "workers", "there", "expected"),
    [
        (None, None, {"GPU": 4.0, "CPU": 8.0}, (4, 1.0)),
        (None, None, {"CPU": 8.0}, (8, 0.0)),
        (0.5, None, {"GPU": 2.0}, (4, 0.5)),
        (0.4, None, {"GPU": 1.0}, (2, 0.4)),
        (2.0, None, {"GPU": 5.0}, (2, 2.0)),
        (0.0, 3, {"GPU": 2.0, "CPU": 4.0}, (3, 0.0)),
    ],
)
def test_workers_fill_the_cluster_when_their_number_is_not_given(gpus, workers, there, expected):
    own = RunSettings(source=Path("p.txt"), ray="auto", ray_gpus=gpus, ray_workers=workers)
    room = Room.of(own, there)
    assert (room.workers, room.gpus) == expected
