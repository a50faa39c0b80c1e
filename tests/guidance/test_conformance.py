import torch
from tests.guidance.conformance import (
    STEPS,
    MemoryConformance,
    MethodConformance,
    OptionConformance,
    RegionConformance,
    sample,
    scene,
)
from tests.guidance.places import features

from unalike.guidance.method import Method
from unalike.guidance.methods import METHODS


class TestAutoWithoutNoise(MemoryConformance):
    method = "auto"
    active = {"strength": 0.1, "noise_to_signal": 1e-6, "eta": 0.0, "limit": None}  # noqa: RUF012
    idle = ({"strength": 0}, {"noise_to_signal": 1e6, "start": 0.5})

    def test_every_image_changes_at_every_step_when_active(self) -> None:
        """All but the last one, after which nothing would be cleaned up."""
        guided, plain = sample(self.build(), **scene()), sample(**scene())
        assert guided.active_steps() == list(range(STEPS - 1))
        assert ((guided.images - plain.images).flatten(1).norm(dim=1) > 1e-3).all()


class TestSPARKE(MemoryConformance):
    method = "sparke"
    active = {"strength": 0.1}  # noqa: RUF012
    idle = ({"strength": 0},)


class TestSPARKEOnNoisyLatents(MemoryConformance):
    method = "sparke"
    active = {"strength": 0.03, "target": "x_t"}  # noqa: RUF012
    idle = ({"strength": 0.0},)


class TestSPARKEWithCosineAndNoPrompts(MemoryConformance):
    method = "sparke"
    active = {"strength": 0.1, "objective": "rke", "kernel": "cosine"}  # noqa: RUF012
    idle = ({"strength": 0},)


class TestSPARKEInARegion(MemoryConformance, RegionConformance):
    method = "sparke"
    active = {"strength": 0.1, "region": (0, 0, 0.5, 1)}  # noqa: RUF012
    idle = ({"strength": 0}, {"region": (0.3, 0, 0.6, 0.2)})


class TestSPARKEOfImages(MemoryConformance):
    method = "sparke"
    active = {"strength": 0.1, "embed": features}  # noqa: RUF012
    idle = ({"strength": 0},)


class TestVendiGuidance(MemoryConformance):
    method = "vendi"
    active = {"strength": 0.1, "bandwidth": 1.0}  # noqa: RUF012
    idle = ({"strength": 0},)


class TestConditionalVendiGuidance(MemoryConformance):
    method = "vendi"
    active = {"strength": 0.1, "conditional": True}  # noqa: RUF012
    idle = ({"strength": 0},)


class TestVendiGuidanceOfOrderTwo(MemoryConformance):
    method = "vendi"
    active = {"strength": 0.1, "order": 2}  # noqa: RUF012
    idle = ({"strength": 0},)


class TestVendiGuidanceOnNoisyLatents(MemoryConformance):
    method = "vendi"
    active = {"strength": 0.03, "target": "x_t", "kernel": "cosine"}  # noqa: RUF012
    idle = ({"strength": 0},)


class TestVendiGuidanceInARegion(MemoryConformance, RegionConformance):
    method = "vendi"
    active = {"strength": 0.1, "region": (0, 0, 0.5, 1)}  # noqa: RUF012
    idle = ({"strength": 0},)


class TestVendiGuidanceOfImages(TestSPARKEOfImages):
    method = "vendi"


class TestSPELL(MemoryConformance):
    method = "spell"
    active = {"radius": 50.0, "overcompensation": 0.1}  # noqa: RUF012
    idle = ({"radius": 1e-6}, {"overcompensation": 0})


class TestSPELLInARegion(MemoryConformance, RegionConformance):
    method = "spell"
    active = {"radius": 50.0, "overcompensation": 0.1, "region": (0, 0, 0.5, 1)}  # noqa: RUF012
    idle = ({"radius": 1e-6},)


class TestParticleGuidance(MethodConformance):
    method = "particle"
    active = {"strength": 1.0}  # noqa: RUF012
    idle = ({"strength": 0},)


class TestTSR(MethodConformance):
    method = "tsr"
    active = {"temperature": 0.5}  # noqa: RUF012
    idle = ({"temperature": 1.0},)

    def test_result_is_bit_identical_when_there_is_nothing_to_be_unlike(self) -> None:
        """Each image is treated by itself, so there always is something."""
        setting = scene()
        together = sample(self.build(), **setting).images
        for i in range(len(together)):
            one = {k: setting[k][i : i + 1] for k in ("noise", "groups", "prompts")}
            alone = sample(self.build(), **{**setting, **one}).images
            torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-4)


def option_cases() -> dict[str, type[OptionConformance]]:
    """The tests of the options of every method in the table."""
    return {
        name: type(name, (OptionConformance,), {"method": method.name, "active": {}})
        for method in METHODS.values()
        for name in [f"TestOptionsOf{method.__name__}"]
    }


globals().update(option_cases())


def covered(conformance: type) -> set[str]:
    own = {conformance.method} if hasattr(conformance, "method") else set()
    return own.union(*(covered(c) for c in conformance.__subclasses__()))


def test_every_method_that_corrects_predictions_is_covered():
    correcting = {n for n, m in METHODS.items() if m.x0_delta is not Method.x0_delta}
    assert covered(MethodConformance) == correcting
