"""Checks that need a GPU at their real size: `scripts/gpu-check`.

The same code runs on the CPU with tiny models in every run of the tests. Times are recorded, never
asserted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.gpu import models
from tests.gpu.conftest import Setting
from torch import Tensor

from unalike.attach import Candidates, choose, guide
from unalike.guidance.auto import Auto
from unalike.guidance.cads import CADS
from unalike.guidance.sparke import SPARKE
from unalike.guidance.spell import SPELL
from unalike.memory import Memory
from unalike.runs.generate import generate
from unalike.runs.pipeline import RunPipeline
from unalike.runs.settings import GenerateSettings
from unalike.shields import Shield

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # of diffusers

IMAGES = 2
Measured = Callable[[str, float, str], None]


def latents(call: Any, name: str, setting: Setting) -> Tensor:
    """The final latents of a call, on the CPU."""
    side = models.SIZES[name][setting.size]["side"]
    generators = [torch.Generator().manual_seed(seed) for seed in range(IMAGES)]
    arguments = {"height": side, "width": side, "num_inference_steps": setting.steps}
    result = call(prompt=["cat"] * IMAGES, generator=generators, output_type="latent", **arguments)
    return result.images.cpu()


def timed(call: Callable[[], Any], repeats: int = 2) -> float:
    """The shortest of several times in seconds, after one call that is not timed."""
    call()
    times = []
    for _ in range(repeats):
        synchronize()
        began = time.perf_counter()
        call()
        synchronize()
        times.append(time.perf_counter() - began)
    return min(times)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@pytest.mark.parametrize(
    ("name", "parameters"), [("sdxl", 2_567_463_684), ("flux", 11_901_408_320)]
)
def test_denoiser_has_the_published_number_of_parameters(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = models.denoiser(name, "real")
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_latents_are_bit_identical_when_guidance_changes_nothing(
    pipe: Any, name: str, setting: Setting
) -> None:
    plain = latents(pipe, name, setting)
    assert torch.equal(latents(pipe, name, setting), plain), "the pipeline itself is not repeatable"
    nothing = (SPARKE(strength=0.0), SPELL(radius=1e-6, batch=True))
    assert torch.equal(latents(guide(pipe, *nothing, memory=Memory()), name, setting), plain)
    assert torch.equal(latents(pipe, name, setting), plain)


METHODS = (Auto(), SPARKE(strength=0.1), SPELL(radius=2000.0, batch=True), CADS())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_latents_change_and_the_cost_is_recorded_when_guided(
    pipe: Any, name: str, setting: Setting, method: Any, measured: Measured
) -> None:
    guided = guide(pipe, method)
    changed = latents(guided, name, setting)
    assert changed.isfinite().all()
    assert not torch.equal(changed, latents(pipe, name, setting))
    plain, total = (timed(lambda call=c: latents(call, name, setting)) for c in (pipe, guided))
    step = 1000 / setting.steps
    what = f"{name}, {IMAGES} images, {type(method).__name__}"
    measured(f"{what}: unguided step", plain * step, "ms")
    measured(f"{what}: guidance adds to a step", (total - plain) * step, "ms")
    if torch.cuda.is_available():
        measured(f"{what}: most memory so far", torch.cuda.max_memory_allocated() / 1e9, "GB")


def test_chosen_seeds_cost_their_evaluations_and_draw_the_pipelines_own_images(
    pipe: Any, name: str, setting: Setting, measured: Measured
) -> None:
    """The drawing takes the first evaluation of the chosen candidates over."""
    side = models.SIZES[name][setting.size]["side"]
    arguments = {"height": side, "width": side, "num_inference_steps": setting.steps}

    def chosen() -> Any:
        return choose(
            pipe, "cat", num=IMAGES, candidates=4 * IMAGES, step=1, batch_size=IMAGES, **arguments
        )

    choice = chosen()
    assert choice.calls == 4 * IMAGES
    assert choice.latents.isfinite().all()
    assert len(set(choice.seeds)) == IMAGES
    assert chosen().seeds == choice.seeds
    guided = guide(pipe, candidates=Candidates(count=2, step=1))
    drawn = latents(guided, name, setting)
    report = guided.report
    assert report is not None
    assert (report.calls, report.reused) == (IMAGES * (1 + setting.steps), 1)
    seeds = [torch.Generator().manual_seed(image.seed or 0) for image in report.images]
    call = {"prompt": ["cat"] * IMAGES, "generator": seeds, "output_type": "latent", **arguments}
    plain = pipe(**call).images.cpu()
    torch.testing.assert_close(drawn.float(), plain.float(), atol=0.05, rtol=0.05)
    draw, choosing = timed(lambda: latents(pipe, name, setting)), timed(chosen)
    picking = timed(lambda: latents(guided, name, setting))
    measured(f"{name}: choose {IMAGES} of {4 * IMAGES} seeds", choosing, "s")
    measured(f"{name}: draw {IMAGES} images in {setting.steps} steps", draw, "s")
    measured(f"{name}: the same, each of 2 candidates", picking, "s")
    if torch.cuda.is_available():
        measured(f"{name}: most memory", torch.cuda.max_memory_allocated() / 1e9, "GB")


def test_images_are_those_of_the_pipeline_when_generate_draws_them(
    pipe: Any, name: str, setting: Setting, folder: Path, measured: Measured
) -> None:
    """Its overhead is what it takes beside loading the model and drawing the images."""
    pipe.save_pretrained(folder / "model")
    settings = GenerateSettings(
        prompts=("cat",),
        num=IMAGES,
        batch_size=IMAGES,
        steps=setting.steps,
        model=str(folder / "model"),
        method=("sparke",),
        strength=0.0,
        device=str(setting.device),
        dtype=str(setting.dtype).removeprefix("torch."),
        out=folder / "out",
    )
    began = time.perf_counter()
    outcome = generate(settings)
    total = time.perf_counter() - began
    assert outcome.finished
    files = sorted((folder / "out" / "images").glob("*.png"))
    models.release()
    began = time.perf_counter()
    pipeline = RunPipeline.open(settings, settings.prompts)
    load = time.perf_counter() - began
    assert pipeline.pipe.dtype == setting.dtype
    expected = pipeline.pipe(**drawing(setting, pipeline)).images
    assert len(files) == IMAGES
    for file, image in zip(files, expected, strict=True):
        with Image.open(file) as drawn:
            assert drawn.tobytes() == image.tobytes()
    draw = timed(lambda: pipeline.pipe(**drawing(setting, pipeline)), repeats=1)
    measured(f"{name}: load", load, "s")
    measured(f"{name}: draw {IMAGES} images in {setting.steps} steps", draw, "s")
    measured(f"{name}: generate beside loading and drawing", total - load - draw, "s")


def drawing(setting: Setting, pipeline: RunPipeline) -> dict[str, Any]:
    generators = [torch.Generator().manual_seed(seed) for seed in range(IMAGES)]
    return {
        "prompt": ["cat"] * IMAGES,
        "generator": generators,
        "num_inference_steps": setting.steps,
        "guidance_scale": pipeline.guidance_scale,
    }


def test_latents_are_the_same_when_models_are_offloaded(
    pipe: Any, name: str, setting: Setting, measured: Measured
) -> None:
    methods = (SPARKE(strength=0.3), SPELL(radius=2000.0, batch=True))
    plain, guided = latents(pipe, name, setting), latents(guide(pipe, *methods), name, setting)
    pipe.enable_model_cpu_offload(device=setting.device)
    try:
        began = time.perf_counter()
        assert torch.equal(latents(pipe, name, setting), plain)
        measured(f"{name}: offloaded call", time.perf_counter() - began, "s")
        nothing = guide(pipe, SPARKE(strength=0.0), memory=Memory())
        assert torch.equal(latents(nothing, name, setting), plain)
        assert torch.equal(latents(guide(pipe, *methods), name, setting), guided)
    finally:
        pipe.remove_all_hooks()
        pipe.to(setting.device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_search_finds_the_same_on_the_device_as_on_the_cpu(
    setting: Setting, dtype: torch.dtype, measured: Measured
) -> None:
    generator = torch.Generator().manual_seed(0)
    protected = torch.randn(setting.protected, setting.width, generator=generator)
    shield = Shield(protected, space="tests", radius=0.5 * setting.width**0.5)
    amounts = torch.linspace(0.05, 1.0, 32)[:, None]
    noise = torch.randn(32, setting.width, generator=generator)
    queries = (protected[:32] + amounts * noise).to(dtype)
    there = queries.to(setting.device)
    index, distance = shield.nearest(queries)
    for found, expected in zip(shield.nearest(there), (index, distance), strict=True):
        assert torch.equal(found, expected)
    inside = shield.inside(queries)
    assert 0 < inside.sum() < len(inside)
    assert torch.equal(shield.inside(there).cpu(), inside)
    moved, which = shield.move_out(there)
    assert torch.equal(which.cpu(), inside)
    distances = torch.cdist(moved.cpu().double(), protected.double())
    assert (distances >= shield.radius * (1 - 1e-9)).all()  # of which cdist is exact to 1e-11
    assert torch.equal(moved.cpu()[~inside], queries[~inside])
    for where, rows in (("CPU", queries), (str(setting.device), there)):
        seconds = timed(lambda rows=rows: shield.inside(rows))
        measured(f"search of 32 among {len(shield)} of {setting.width}, {where}", seconds, "s")
