"""Simulate a run of many workers on Ray from what its operations cost.

Each worker begins a batch at its shard of the memory, draws it, adds it to the memory, and sends
the images to the process of the run, which writes them. The actors of the shards, the disk, the
network card and the process of the run each do one thing at a time, in the order of arrival.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from unalike.runs.ray.workers import BOUND, shards_for


@dataclass(frozen=True)
class Load:
    """What is drawn, with assumptions where nothing was measured.

    Args:
        name: in tables.
        seconds: that a worker draws a batch for (assumed).
        numbers: of a latent, a key of the measured costs.
        image: the size of an image file, a key of the measured costs.
        batch: images of a batch.
    """

    name: str
    seconds: float
    numbers: str
    image: str
    batch: int = 8


LOADS = (
    Load("SD 1.5, 512×512, 8 images in 10 s", 10.0, "16,384", "0.5 MB"),
    Load("SDXL, 1024×1024, 8 images in 30 s", 30.0, "65,536", "1.6 MB"),
    Load("SDXL in few steps, 8 images in 4 s", 4.0, "65,536", "1.6 MB"),
)
WORKERS = (1, 4, 16, 64, 128, 256)
BANDWIDTH, LATENCY, SPREAD = 1.25e9, 0.002, 0.1
"""Assumed: bytes a second of the network card (10 Gbit/s), seconds of a call of Ray, and the
relative spread of the time that a batch takes.
"""


@dataclass(frozen=True)
class Simulated:
    """What a simulation found.

    Attributes:
        throughput: batches, as a share of what so many workers would draw without waiting.
        mean, largest: staleness, in batches.
        busy: share of the time that the disk of the memory, the network card and the process of
            the run work.
    """

    throughput: float
    mean: float
    largest: int
    busy: dict[str, float]


class _Server:
    """Does one thing at a time."""

    def __init__(self) -> None:
        self.free = self.worked = 0.0

    def done(self, arrival: float, seconds: float) -> float:
        """When something that arrives then is done."""
        self.free = max(self.free, arrival) + seconds
        self.worked += seconds
        return self.free


def simulate(
    load: Load, workers: int, costs: Mapping[str, Any], batches_each: int = 40
) -> Simulated:
    """Simulate so many batches a worker; the first fifth does not count.

    Args:
        load: what is drawn.
        workers: how many.
        costs: as `measure_costs` wrote them.
        batches_each: of each worker.
    """
    memory, files = costs["memory"][load.numbers], costs["files"][load.image]
    row = int(load.numbers.replace(",", "")) * 4
    picture = float(load.image.split()[0]) * 1e6
    count, rng = shards_for(workers), random.Random(0)
    actors = [_Server() for _ in range(count)]
    disk, network, driver = _Server(), _Server(), _Server()
    added = [0] * count  # batches in each shard
    seen = [[0] * count for _ in range(workers)]  # of them, that each worker has
    staleness: list[int] = []
    events = [(0.0, worker, "begin", 0, 0) for worker in range(workers)]
    heapq.heapify(events)
    number, finished = 0, []
    while events:
        now, worker, kind, shard, then = heapq.heappop(events)
        if kind == "begin":
            shard, number = number % count, number + 1
            new = (added[shard] - seen[worker][shard]) * load.batch
            seen[worker][shard] = added[shard]
            ready = actors[shard].done(now + LATENCY, memory["begin"] + new * memory["row"])
            ready = network.done(ready, new * row / BANDWIDTH) + LATENCY
            drawn = ready + load.seconds * max(0.1, rng.gauss(1.0, SPREAD))
            heapq.heappush(events, (drawn, worker, "drawn", shard, added[shard]))
        elif kind == "drawn":
            there = network.done(now + LATENCY, load.batch * row / BANDWIDTH)
            there = actors[shard].done(there, 0.0)
            there = disk.done(there, memory["commit"])
            actors[shard].free = max(actors[shard].free, there)
            heapq.heappush(events, (there, worker, "added", shard, then))
        else:
            staleness.append(added[shard] - then)
            added[shard] += 1
            sent = network.done(now + LATENCY, load.batch * picture / BANDWIDTH)
            finished.append(driver.done(sent, costs["ray"]["batch"] + files["commit"]))
            if len(finished) + workers <= workers * batches_each:
                heapq.heappush(events, (now + LATENCY, worker, "begin", 0, 0))
    return _found(load, workers, finished, staleness, disk, network, driver)


def _found(
    load: Load,
    workers: int,
    finished: list[float],
    staleness: list[int],
    disk: _Server,
    network: _Server,
    driver: _Server,
) -> Simulated:
    begin = len(finished) // 5
    seconds = finished[-1] - finished[begin]
    rate = (len(finished) - 1 - begin) / seconds
    kept = staleness[begin:]
    assert max(kept) <= BOUND * workers
    servers = {"disk": disk, "network": network, "run": driver}
    busy = {name: min(1.0, server.worked / finished[-1]) for name, server in servers.items()}
    return Simulated(rate * load.seconds / workers, fmean(kept), max(kept), busy)
