import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu-check"


def gpu_check(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable}
    command = [str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_checks_run_on_the_cpu_when_the_script_is_asked_to():
    result = gpu_check("--device", "cpu", "--tiny", "--", "-k", "tiny-cpu and search")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "search of 32 among 200 of 256, cpu: " in result.stdout
    assert "2 passed" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--device", "cpu"],
            "--device cpu with real sizes; allowed: cuda, cuda --tiny, cpu --tiny",
        ),
        (["--tinny"], "unknown option --tinny"),
    ],
)
def test_script_says_what_is_allowed_when_options_are_wrong(arguments, message):
    result = gpu_check(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
