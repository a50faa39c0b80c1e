"""Is any latent inside a protected ball? Reads the files alone, and shares no code with the
package: see `--help`.

Every latent is compared with every protected vector, by differences in float64. Where the set is
stored in float16, the largest rounding error that its manifest states is added to the radius.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


def protected(folder: Path) -> tuple[np.ndarray, float]:
    """The vectors (n, d) of a protected set, and how far an image has to be from each."""
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    shards = [load_file(folder / shard["file"])["vectors"] for shard in manifest["shards"]]
    return np.concatenate(shards).astype(np.float64), manifest["radius"] + manifest["rounding"]


def distances(latents: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The distance (m,) of each latent to the nearest vector."""
    rows = latents.reshape(len(latents), -1).astype(np.float64)
    return np.array(
        [
            min(
                np.sqrt(((vectors[i : i + 4096] - row) ** 2).sum(axis=1)).min()
                for i in range(0, len(vectors), 4096)
            )
            for row in rows
        ]
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shield", type=Path, help="folder of a protected set")
    parser.add_argument(
        "latents",
        type=Path,
        help="a file of latents, or a folder of such files: safetensors with a tensor `latents`",
    )
    parser.add_argument("--name", help="what to call the result; the folder's name unless given")
    parser.add_argument("--out", type=Path, help="JSON file to add the result to")
    arguments = parser.parse_args()
    vectors, radius = protected(arguments.shield)
    files = (
        sorted(arguments.latents.glob("*.safetensors"))
        if arguments.latents.is_dir()
        else [arguments.latents]
    )
    if not files:
        parser.error(f"{arguments.latents} has no safetensors files")
    found = np.concatenate([distances(load_file(file)["latents"], vectors) for file in files])
    result = {
        "images": len(found),
        "protected": len(vectors),
        "inside": int((found < radius).sum()),
        "nearest": found.min(),
        "radius": radius,
    }
    print(json.dumps(result))
    if arguments.out is not None:
        earlier = json.loads(arguments.out.read_text("utf-8")) if arguments.out.exists() else {}
        arguments.out.write_text(
            json.dumps({**earlier, arguments.name or arguments.latents.name: result}, indent=1)
            + "\n",
            "utf-8",
        )


if __name__ == "__main__":
    main()
