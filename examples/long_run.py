"""A long run from Python, gone on with, and its images as a data set."""

from pathlib import Path

from datasets import load_dataset

from unalike.runs.run import run
from unalike.runs.run_settings import RunSettings

Path("prompts.csv").write_text("prompt,n\nheart,2\nfarmer,2\n", "utf-8")
how = {"source": Path("prompts.csv"), "model": "emoji-turbo", "batch_size": 2}
settings = RunSettings(**how, out=Path("hearts"))
print(run(settings).record["images"])
print(len(run(settings).samples), "images, and nothing was left to draw")
run(RunSettings(**how, out=Path("sharded"), shard_size=1 << 20))

images = load_dataset("imagefolder", data_dir="hearts", split="train")
sharded = load_dataset("webdataset", data_files={"train": "sharded/shards/*.tar"}, split="train")

print(images[0]["text"], images[0]["image"].size)
print(sharded[0]["txt"], sharded[0]["png"].size)
