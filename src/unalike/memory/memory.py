"""A bounded bank of earlier generations that outlives the process."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from unalike.errors import OptionError, StoreError, UnsupportedError
from unalike.memory import creation, forks
from unalike.memory.banks import Banks
from unalike.memory.changes import Changes, Position, changes, commits, follow
from unalike.memory.labels import Label, Mark, matching, require_thumbnail
from unalike.memory.place import Found, absolute, identity, look, require_local
from unalike.memory.samples import Batch, checked_batch, labelled, require_capacity, require_dtype
from unalike.memory.store import Store, write_over
from unalike.memory.view import View


class Memory:
    """The final latents of earlier generations and the embeddings of their prompts, by space.

    Holds at most `capacity` samples over all spaces together; when more come, the oldest go first,
    whatever their space. A sample is there once: one whose item is held is not stored again.

    `Memory()` lives in RAM. `Memory.open` has a file: what is added is on the disk when `add`
    returns, and several processes may use the file at once. Methods of one memory may be called
    from several threads.

    Args:
        capacity: the most samples it holds.
        dtype: "float32", or "float16" for half the space; what is compared is float32 in both
            cases.

    Raises:
        OptionError: for a capacity below 1 or another dtype.

    Cost: adding a batch of B samples of d numbers takes O(B d) on average, whatever it holds.

    Example:
        >>> memory = Memory(capacity=3)
        >>> memory.add("model/2", torch.eye(2), texts=["cat", "dog"])
        >>> memory.add("model/2", torch.zeros(2, 2), texts=["owl", "fox"])
        >>> len(memory), memory.texts("model/2")
        (3, ['dog', 'owl', 'fox'])
        >>> memory.view("model/2").latents.shape
        torch.Size([3, 2])
    """

    def __init__(self, capacity: int = 10_000, dtype: str = "float32") -> None:
        require_capacity(capacity)
        require_dtype(dtype)
        self._begin(Banks(capacity, dtype), None)

    def _begin(self, banks: Banks, store: Store | None) -> None:
        self.lock = threading.RLock()
        self._banks = banks
        self._store = store
        self._marks = threading.local()
        self._name = secrets.token_hex(8)
        if store is not None:
            forks.guard(self)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        create: bool = False,
        capacity: int | None = None,
        dtype: str | None = None,
        keep: Callable[[str | None], bool] | None = None,
    ) -> Self:
        """Open the memory in a file, to go on with it.

        Args:
            path: of a file on a local disk. A memory of an earlier release (safetensors) is read
                too; what is first added turns it into a database and keeps the old file beside it
                as `PATH.safetensors-backup`.
            create: whether to begin a memory where there is no file; it is readable and writable
                for its owner alone.
            capacity, dtype: as of `Memory`, for a memory that is begun; None for the defaults, and
                for those of the file where there is one.
            keep: tells by the text of a sample that is in the file, or that another process adds,
                whether this memory has it; None for all. The capacity counts what it has.

        Raises:
            StoreError: where there is no file and `create` is not set, for one that is damaged or
                no memory, and for a place where a memory cannot be: a symbolic link, a folder, a
                network file system.
            OptionError: for a capacity or dtype that is not allowed or not that of the file.

        Cost: one pass over the file, which compares all checksums.

        Example:
            >>> import tempfile
            >>> folder = tempfile.TemporaryDirectory()
            >>> with Memory.open(f"{folder.name}/cats.memory", create=True) as memory:
            ...     memory.add("model/2", torch.eye(2), texts=["cat", "dog"])
            >>> with Memory.open(f"{folder.name}/cats.memory") as memory:
            ...     memory.texts("model/2")
            ['cat', 'dog']
            >>> folder.cleanup()
        """
        for value, require in ((capacity, require_capacity), (dtype, require_dtype)):
            if value is not None:
                require(value)
        place = absolute(path)
        require_local(place)
        found = look(place)
        if found is Found.NOTHING:
            if not create:
                raise StoreError(
                    f"there is no memory at {str(place)!r}; check the path, or begin one with "
                    "Memory.open(path, create=True)"
                )
            creation.create(place, capacity or 10_000, dtype or "float32")
            found = look(place)
        store = Store(place, found, keep)
        memory = cls.__new__(cls)
        memory._begin(store.banks, store)
        memory._require_same(capacity, dtype)
        return memory

    def _require_same(self, capacity: int | None, dtype: str | None) -> None:
        for name, value in (("capacity", capacity), ("dtype", dtype)):
            kept = getattr(self, name)
            if value is not None and value != kept:
                how = ", or change it with memory.resize" if name == "capacity" else ""
                self.close()
                raise OptionError(
                    f"{name} is {value!r} and that of the memory {str(self.path)!r} is {kept!r}; "
                    f"leave it out to keep that{how}"
                )

    @property
    def capacity(self) -> int:
        """The most samples it holds."""
        return self._banks.capacity

    @property
    def dtype(self) -> str:
        """The precision of what it holds: "float32" or "float16"."""
        return self._banks.dtype

    @property
    def path(self) -> Path | None:
        """Its file, from the root; None in RAM."""
        return None if self._store is None else self._store.path

    def __len__(self) -> int:
        return len(self._banks)

    def __contains__(self, item: object) -> bool:
        """Whether it has a sample of this item."""
        with self.lock:
            return item in self._banks.held

    def __repr__(self) -> str:
        spaces = ", ".join(self._banks.spaces) or "none"
        return f"Memory({len(self)} of {self.capacity} samples, {self.dtype}, spaces: {spaces})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, where there is one; what was read stays, and nothing can be added."""
        with self.lock:
            if self._store is not None:
                self._store.close()

    def disconnect(self) -> None:
        """Close the file until it is next used; forking does it by itself."""
        with self.lock:
            if self._store is not None:
                self._store.disconnect()

    def refresh(self) -> None:
        """Take in what other processes added to the file and removed from it.

        `guide`d calls and `choose` do it once, when they begin, and `add` does it before it adds;
        nothing else does, so that what a call compares with stays the same until its end. In RAM
        nothing happens.

        Raises:
            StoreError: when the file cannot be read, or is not where it was.

        Cost: some microseconds where there is nothing new; after a removal, reading all.
        """
        with self.lock:
            if self._store is not None:
                self._store.refresh()

    def changes(self, since: Position | None = None) -> Changes:
        """What a copy of this memory lacks; `follow` brings the copy up to date.

        Args:
            since: the position of the copy; None for one that has nothing.

        Raises:
            UnsupportedError: for a memory in RAM.
            StoreError: when the file cannot be read.

        Cost: that of the new samples, whose numbers are not copied.

        Example:
            >>> import tempfile
            >>> folder, copy = tempfile.TemporaryDirectory(), Memory()
            >>> with Memory.open(f"{folder.name}/cats.memory", create=True) as memory:
            ...     memory.add("model/2", torch.eye(2), texts=["cat", "dog"])
            ...     found = memory.changes()
            ...     copy.follow(found)
            ...     len(copy), len(memory.changes(found.position))
            (2, 0)
            >>> folder.cleanup()
        """
        with self.lock:
            self.refresh()
            return changes(self._banks, self._position(), since)

    def commits(self, since: Position) -> int:
        """How many batches were added since a copy was at a position."""
        with self.lock:
            return commits(self._banks, since)

    def follow(self, found: Changes) -> None:
        """Take in the `changes` of another memory, with the numbers that they have there.

        Args:
            found: of the memory that this one, in RAM, is a copy of.
        """
        with self.lock:
            follow(self._banks, found)

    def _position(self) -> Position:
        if self._store is None:
            raise UnsupportedError(
                "a memory in RAM cannot be followed; begin one in a file, with "
                "Memory.open(path, create=True)"
            )
        return Position(self._name, self._store.epoch, self._banks.next)

    def spaces(self) -> dict[str, int]:
        """Number of samples by space."""
        with self.lock:
            return {space: len(bank) for space, bank in self._banks.spaces.items()}

    def add(
        self,
        space: str,
        latents: Tensor,
        *,
        prompts: Tensor | None = None,
        texts: Sequence[str | None] | None = None,
        seeds: Sequence[int | None] | None = None,
        items: Sequence[str] | None = None,
        places: Sequence[int] | None = None,
    ) -> None:
        """Append a batch; all of it or, where something is wrong, nothing.

        A sample whose item is held, or comes twice in the batch, is left out. With a file the
        batch is on the disk, in one transaction, when this returns.

        Args:
            space: names the latent space and that of the prompt embeddings.
            latents: final clean latents (B, …).
            prompts: embeddings (B, p) of their prompts, or None; the same choice for all of a
                space.
            texts: the prompts themselves, for people to read.
            seeds: the seeds they can be made from again; None for one that has none.
            items: a name for each sample; None for those of `marked`, and where there are none
                for a hash of space, text, seed and latent.
            places: which of the items of `marked` these are; None for the first B. Without
                `marked` they mean nothing.

        Raises:
            OptionError: when the sizes do not fit each other or what the space holds already.
            NumericsError: for NaN and infinity, and latents too large or too small for float16.
            StoreError: when the file cannot be written: it may only be read, its disk is full, or
                another process has been writing to it for a minute.
        """
        batch, known = checked_batch(space, latents, prompts, texts, seeds, dtype=self.dtype)
        mark: Mark | None = getattr(self._marks, "mark", None)
        batch = labelled(batch, known, items, places, mark)
        with self.lock:
            if not len(batch):
                self._banks.fresh(batch)  # which refuses what does not fit
            else:
                self.commit(batch)

    def commit(self, batch: Batch) -> None:
        """Append samples that are checked and labelled; `add` does it with what it makes."""
        with self.lock:
            if self._store is None:
                self._banks.append(self._banks.fresh(batch))
            else:
                self._store.add(batch)

    @contextmanager
    def marked(self, run: str, items: Sequence[str]) -> Iterator[None]:
        """Name the samples that this thread adds meanwhile, and the run that makes them.

        Args:
            run: names the run; `items` and `remove` find its samples by it.
            items: the names of all images of a call, in order; `add` takes those of the images
                that are kept.

        Raises:
            OptionError: for a run or an item that is no text.

        Example:
            >>> memory = Memory()
            >>> with memory.marked("monday", ["first", "second"]):
            ...     memory.add("model/2", torch.ones(1, 2), places=[1])
            >>> memory.items("monday")
            ['second']
        """
        before = getattr(self._marks, "mark", None)
        self._marks.mark = Mark.checked(run, items)
        try:
            yield
        finally:
            self._marks.mark = before

    def view(self, space: str, device: torch.device | str | None = None) -> View | None:
        """The samples of a space, oldest first, in float32; None where it has none.

        With float32 storage nothing is copied, and later additions do not change what was handed
        out. On another device than the CPU a copy is kept between calls, and only samples that are
        new are copied to it.

        Args:
            space: as of `add`.
            device: where the samples are to be; None for the CPU.
        """
        with self.lock:
            bank = self._banks.spaces.get(space)
            if bank is None:
                return None
            place = torch.device("cpu" if device is None else device)
            if place.type == "cpu":
                columns = {name: bank.rows(name) for name in ("latents", "prompts")}
            else:
                columns = bank.mirrored(place)
            latents, prompts, numbers = *columns.values(), bank.rows("numbers")
        embeddings = prompts.float() if prompts.shape[1] else None
        return View(latents.float(), embeddings, numbers=numbers)

    def texts(self, space: str) -> list[str | None]:
        """The prompts of a space's samples, oldest first, in the order of `view`."""
        return [label.text for label in self._labels(space)]

    def seeds(self, space: str) -> list[int | None]:
        """The seeds of a space's samples, oldest first, in the order of `view`."""
        return [label.seed for label in self._labels(space)]

    def numbers(self, space: str) -> list[int]:
        """The numbers of a space's samples, in the order of `view`.

        A sample's number is higher than that of all that were added before it, and never changes.
        """
        with self.lock:
            bank = self._banks.spaces.get(space)
            return [] if bank is None else bank.rows("numbers").tolist()

    def fingerprint(self) -> str:
        """A SHA-256 of the items that it holds, in their order: equal for two memories that a run
        begins from alike.

        Cost: one pass over the labels.
        """
        digest = hashlib.sha256()
        with self.lock:
            for label in self._banks.labels():
                digest.update(f"{label.item}\n".encode())
        return digest.hexdigest()

    def items(self, run: str) -> list[str]:
        """The items of the samples that a run added, over all spaces, oldest first."""
        with self.lock:
            return [label.item for label in self._banks.labels() if label.run == run]

    def remove(
        self,
        *,
        items: Collection[str] | None = None,
        texts: Collection[str] | None = None,
        seeds: Collection[int] | None = None,
        run: str | None = None,
    ) -> int:
        """Remove the samples that fit all that is given, and return how many.

        From a file they are gone when this returns, and samples that they had pushed out of the
        memory are back, as far as the file still has them (1,024, or a tenth of the capacity).

        Args:
            items: remove samples with one of these items.
            texts: with one of these prompts, exactly.
            seeds: with one of these seeds.
            run: of this run.

        Raises:
            OptionError: where nothing is given.
            StoreError: when the file cannot be written.

        Cost: one pass over the labels; with a file that has pushed out samples, reading all.

        Example:
            >>> memory = Memory()
            >>> memory.add("model/2", torch.eye(2), texts=["cat", "dog"], seeds=[1, 2])
            >>> memory.remove(texts=["cat"]), memory.texts("model/2")
            (1, ['dog'])
        """
        matches = matching(items=items, texts=texts, seeds=seeds, run=run)
        with self.lock:
            if self._store is None:
                return self._banks.remove(matches)
            return self._store.remove(matches)

    def add_thumbnails(self, images: Mapping[str, bytes]) -> int:
        """Keep small images of samples in the file, for people to look at; `unalike memory export
        --thumbnails` shows them.

        Args:
            images: a WebP image of at most 65,536 bytes by the item of the sample.

        Returns:
            For how many samples; items that the file has not are left out.

        Raises:
            OptionError: for something else than such images.
            StoreError: for a memory in RAM, and when the file cannot be written.
        """
        for item, image in images.items():
            require_thumbnail(item, image)
        with self.lock:
            if self._store is None:
                raise StoreError(
                    "this memory lives in RAM, and thumbnails are kept in a file; begin it with "
                    "Memory.open(path, create=True)"
                )
            return self._store.add_thumbnails(images)

    def resize(self, capacity: int) -> None:
        """Set the capacity; the oldest samples that are too many go at once.

        Raises:
            OptionError: for a capacity below 1.
            StoreError: when the file cannot be written.
        """
        require_capacity(capacity)
        with self.lock:
            if self._store is not None:
                self._store.resize(capacity)
            else:
                self._banks.capacity = capacity
                self._banks.evict()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a whole copy to another file, in place of the memory that is there or not at all.

        A memory with a file needs no saving, and to save it there does nothing. Processes that
        have the other file open go on with the copy.

        Raises:
            StoreError: when the file cannot be written, or is there and no memory.
        """
        place = absolute(path)
        require_local(place)
        with self.lock:
            if self._store is None:
                write_over(place, self._banks)
            elif identity(place) is None or identity(place) != identity(self._store.path):
                self._store.copy_to(place)

    def _labels(self, space: str) -> list[Label]:
        with self.lock:
            bank = self._banks.spaces.get(space)
            return [] if bank is None else bank.living_labels()
