"""Images unlike those of earlier programs and of others that run now, by a memory in a file."""

import unalike

pipe = unalike.load("emoji-turbo")
with unalike.Memory.open("cats.memory", create=True) as memory:
    guided = unalike.guide(pipe, unalike.Auto(), memory=memory)
    out = guided(prompt="cat", num_images_per_prompt=4)  # in the file when the call returns
    print(len(memory), "images so far")

with unalike.Memory.open("cats.memory") as memory, memory.marked("monday", ["first", "second"]):
    guided = unalike.guide(pipe, unalike.Auto(), memory=memory)
    guided(prompt="cat", num_images_per_prompt=2)  # unlike the four of before
    print(memory.items("monday"), "are the last")
