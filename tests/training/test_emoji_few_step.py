"""The training of the few-step and flow models: exact pieces, on the shipped `emoji`."""

from typing import Any

import diffusers
import pytest
import torch
from torch import nn

import unalike
from training.emoji_flow.denoiser import CONFIG, CountedBlank, Texts, build
from training.emoji_turbo.distil import Segments, add_adapters, lora_weights
from training.emoji_turbo.trajectories import Trajectories


@pytest.fixture(scope="module")
def emoji() -> Any:
    return unalike.load("emoji")


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_ddim_step_with_the_target_ends_at_the_later_state(emoji: Any, steps: int) -> None:
    states = torch.randn(2 * steps, 5, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    segments = Segments(steps, emoji.scheduler)
    segment = torch.arange(2 * steps) % steps
    x, velocity = segments.target(states, segment)
    scheduler: Any = diffusers.DDIMScheduler.from_config(emoji.scheduler.config)
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == segments.timesteps.tolist()
    for i, j in enumerate(segment.tolist()):
        end = scheduler.step(velocity[i], segments.timesteps[j], x[i]).prev_sample
        torch.testing.assert_close(end, states[i, (j + 1) * 4 // steps], atol=2e-4, rtol=1e-3)


def test_diffusers_reads_the_adapters_as_a_lora(emoji: Any, tmp_path: Any) -> None:
    trained: Any = unalike.load("emoji").unet
    adapters = add_adapters(trained)
    names = {n for n, m in emoji.unet.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert {name.replace("/", ".") for name in adapters} == names
    generator = torch.Generator().manual_seed(0)
    for parameter in adapters.parameters():
        nn.init.normal_(parameter, std=0.03, generator=generator)
    diffusers.StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers={**lora_weights(adapters, trained)},
        weight_name="few.safetensors",
    )
    pipe = unalike.load("emoji")
    x, t = torch.randn(2, 16, 8, 8, generator=generator), torch.tensor([999, 249])
    text = torch.randn(2, 24, 128, generator=generator)
    with torch.no_grad():
        before = pipe.unet(x, t, text).sample
        pipe.load_lora_weights(tmp_path, weight_name="few.safetensors", prefix="unet")
        loaded, expected = pipe.unet(x, t, text).sample, trained(x, t, text).sample
    torch.testing.assert_close(loaded, expected, atol=1e-4, rtol=1e-4)
    assert (loaded - before).abs().max() > 0.1


def test_one_counted_blank_stands_for_all() -> None:
    model = build()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05, generator=generator)
    texts = Texts(["red heart", "cat"])
    assert texts.tokens.shape == (2, 25, 256)
    assert texts.tokens[:, -1].abs().max() == 0
    given = {
        "hidden_states": torch.randn(2, 16, 8, 8, generator=generator),
        "timestep": torch.tensor([100.0, 900.0]),
        "pooled_projections": texts.pooled,
    }
    blank = CountedBlank()
    with torch.no_grad():
        for count in CONFIG["blanks"]:
            text = torch.cat([texts.tokens[:, :-1], torch.zeros(2, count, 256)], dim=1)
            expected = model(encoder_hidden_states=text, **given).sample
            own = {name: block.attn.processor for name, block in named_blocks(model).items()}
            blank.count = count
            for block in named_blocks(model).values():
                block.attn.set_processor(blank)
            found = model(encoder_hidden_states=texts.tokens, **given).sample
            for name, block in named_blocks(model).items():
                block.attn.set_processor(own[name])
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def named_blocks(model: Any) -> dict[str, Any]:
    return dict(model.transformer_blocks.named_children())


def test_training_without_trajectories_says_so(tmp_path: Any) -> None:
    with pytest.raises(FileNotFoundError, match="run emoji-turbo trajectories first"):
        Trajectories.read(tmp_path)
