from tests.guidance.conformance import MethodConformance

from unalike.guidance.methods import METHODS


class TestSPARKE(MethodConformance):
    method = "sparke"
    active = {"strength": 0.1}  # noqa: RUF012
    idle = ({"strength": 0},)


class TestSPARKEOnNoisyLatents(MethodConformance):
    method = "sparke"
    active = {"strength": 0.03, "target": "x_t"}  # noqa: RUF012
    idle = ({"strength": 0.0},)


class TestSPARKEWithCosineAndNoPrompts(MethodConformance):
    method = "sparke"
    active = {"strength": 0.1, "objective": "rke", "kernel": "cosine"}  # noqa: RUF012
    idle = ({"strength": 0},)


class TestVendiGuidance(MethodConformance):
    method = "vendi"
    active = {"strength": 0.1, "bandwidth": 1.0}  # noqa: RUF012
    idle = ({"strength": 0},)


class TestConditionalVendiGuidance(MethodConformance):
    method = "vendi"
    active = {"strength": 0.1, "conditional": True}  # noqa: RUF012
    idle = ({"strength": 0},)


class TestSPELL(MethodConformance):
    method = "spell"
    active = {"radius": 50.0, "overcompensation": 0.1}  # noqa: RUF012
    idle = ({"radius": 1e-6}, {"overcompensation": 0})


def test_every_method_of_the_table_is_covered():
    covered = {cls.method for cls in MethodConformance.__subclasses__()}
    assert covered == set(METHODS)
