"""Workers in processes of their own; the CPU stands for GPUs."""

import multiprocessing
import os
import signal
import threading

import pytest
from tests.runs.several import command, require_once, settings, started

from unalike.errors import OptionError, StoreError, WorkerError
from unalike.memory import Memory
from unalike.runs.devices import Devices, require_devices
from unalike.runs.plan import planned_images
from unalike.runs.run import run
from unalike.runs.stopping import Stop

TWO = ("cpu", "cpu")


def test_every_image_is_there_once_when_a_worker_is_killed(tiny_sd_folder, tmp_path):
    killed = []

    def kill_one(row):
        if not killed:
            process = multiprocessing.active_children()[0]
            process.kill()
            killed.append(process)

    outcome = run(settings(tiny_sd_folder, tmp_path, devices=TWO), told=kill_one)
    assert outcome.finished
    assert outcome.record["workers"] == {"kind": "devices", "devices": ["cpu", "cpu"], "died": 1}
    require_once(tmp_path)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_every_image_is_there_once_when_the_run_is_ended_and_gone_on_with(
    tiny_sd_folder, tmp_path, number, code
):
    child = started(command(tiny_sd_folder, tmp_path, "--devices", "cpu", num=8))
    child.send_signal(number)
    _, error = child.communicate(timeout=120)
    assert child.returncode == code
    if number == signal.SIGINT:
        assert "interrupted" in error
    assert run(settings(tiny_sd_folder, tmp_path, num=8)).finished
    require_once(tmp_path, num=8)


def test_batch_fails_when_its_worker_always_dies(tiny_sd_folder, tmp_path, monkeypatch):
    from unalike.runs.process import Process

    call = Process.call

    def dying(self, name, *arguments, **rest):
        if name == "draw" and arguments[0][0].prompt == "dog":
            os.kill(self._process.pid, signal.SIGKILL)
        return call(self, name, *arguments, **rest)

    monkeypatch.setattr(Process, "call", dying)
    monkeypatch.setattr("unalike.runs.devices.TRIES", 1)
    outcome = run(settings(tiny_sd_folder, tmp_path, num=2, devices=("cpu",)))
    assert [failure.number for failure in outcome.failures] == [2, 3]
    assert "died (killed by SIGKILL)" in outcome.failures[0].error
    assert len(outcome.samples) == 6


def test_error_of_a_worker_is_that_of_the_run_when_the_model_cannot_be_opened(
    tiny_sd_folder, tmp_path
):
    asked = settings(tiny_sd_folder, tmp_path, devices=("cpu",), set=("auto.none=1",))
    with pytest.raises(OptionError, match=r"set is 'auto.none=1', and auto has no option 'none'"):
        run(asked)
    assert not (tmp_path / "out").exists()
    assert multiprocessing.active_children() == []


def test_workers_end_when_the_run_has_to_end_while_they_draw(tiny_sd_folder, tmp_path):
    asked = settings(tiny_sd_folder, tmp_path, devices=TWO, steps=500)
    workers, drawing, outcomes = Devices.open(asked, ("cat",)), threading.Event(), []
    workers.describe(planned_images(["cat"], 1, 0), [])
    with Memory.open(tmp_path / "bank.memory", create=True) as memory:
        workers.begin(tmp_path, memory, "run", None, lambda batch, steps: drawing.set())
        plan = [[planned] for planned in planned_images(["cat"], 2, 0)]
        thread = threading.Thread(target=lambda: outcomes.extend(workers.draw(plan, Stop())))
        thread.start()
        assert drawing.wait(60)
        assert len(multiprocessing.active_children()) == 2
        workers.close()
        thread.join(60)
    assert multiprocessing.active_children() == []
    assert [type(outcome) for _, outcome in outcomes] == [WorkerError] * 2


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "mps:7", ""])
def test_device_is_refused_when_the_machine_has_none(device):
    with pytest.raises(OptionError, match=r"devices has .* allowed: .*cpu"):
        require_devices(("cpu", device))


def test_errors_are_what_they_were_when_they_come_from_another_process():
    from unalike.errors import RefusedError
    from unalike.runs.process import _sendable

    error = StoreError("full")
    error.__cause__ = OSError(28, "No space left on device")
    sent, cause = _sendable(error)
    assert (sent, cause) == (error, error.__cause__)
    sent, _ = _sendable(RefusedError("inside", output=lambda: None, report=None, refused=[0]))
    assert str(sent) == "RefusedError: 'inside'"
    assert issubclass(WorkerError, RuntimeError)
