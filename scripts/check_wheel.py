"""Build the wheel and try it in an empty virtual environment: `python scripts/check_wheel.py`.

The environment gets the wheel alone. Its dependencies come from the environment of the tests, by a
path, because a second copy of torch would take minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = """
from pathlib import Path
import sys
import unalike

assert Path(unalike.__file__).is_relative_to(sys.prefix), unalike.__file__
from unalike.models import digits, emoji

assert len(emoji.load_images()) == 3650 and len(digits.load_images()) == 1797
images = unalike.guide(unalike.load("digits"), unalike.SPARKE())(
    class_labels=[3, 3], num_inference_steps=2, output_type="pt"
).images
print("judge of digits:", digits.nearest(images.clamp(0, 1)).label.tolist())
"""


def build(folder: Path) -> Path:
    """Build the wheel from the working tree and return its path."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*pip, *options, str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_files(wheel: Path) -> None:
    """Exit unless the wheel holds exactly the package's tracked files and its own metadata."""
    listing = subprocess.run(
        ["git", "ls-files", "src/unalike"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    tracked = {name.removeprefix("src/") for name in listing.stdout.splitlines()}
    tracked = {name for name in tracked if (ROOT / "src" / name).exists()}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    if held != tracked:
        missing, surplus = sorted(tracked - held), sorted(held - tracked)
        raise SystemExit(f"the wheel lacks {missing} and has {surplus} that git does not track")
    print(f"{wheel.name}: {len(held)} files, {wheel.stat().st_size / 1e6:.1f} MB")


def install(wheel: Path, folder: Path) -> Path:
    """Make an environment with the wheel in `folder` and return the folder of its programs."""
    venv.create(folder, with_pip=False, symlinks=True)
    programs = folder / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", "--no-deps", str(wheel)], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    dependencies = folder / "lib" / version / "site-packages" / "dependencies.pth"
    dependencies.write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    return programs


def run(programs: Path, folder: Path) -> None:
    """Run the commands and a program with the installed wheel."""
    unset = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    drawing = ["generate", "heart", "-n", "1", "--steps", "3", "--out", "drawn"]
    commands = [
        [str(programs / "unalike"), *arguments]
        for arguments in (["--version"], ["models"], ["methods"], drawing)
    ]
    commands.append([str(programs / "python"), "-c", PROGRAM])
    for command in commands:
        result = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        if result.returncode or not result.stdout.strip():
            raise SystemExit(f"{command} ended with {result.returncode}\n{result.stderr}")
        print(f"{Path(command[0]).name} {command[1]}: {result.stdout.strip().splitlines()[0]}")
    if not (folder / "drawn" / "report.html").exists():
        raise SystemExit("the run wrote no report.html")


def main() -> None:
    """Build, check and try the wheel."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder)
        check_files(wheel)
        run(install(wheel, folder / "environment"), folder)


if __name__ == "__main__":
    main()
