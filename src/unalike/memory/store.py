"""Keep the banks of a memory and its file alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from unalike.errors import StoreError
from unalike.memory import creation, legacy
from unalike.memory.banks import Banks, same_dtype
from unalike.memory.database import Database
from unalike.memory.labels import Label
from unalike.memory.place import Found, identity, look
from unalike.memory.rows import Rows
from unalike.memory.samples import Batch

_CHUNK = 64
_SPARE, _SPARE_SHARE = 1024, 10


class Store:
    """The file of a memory, and how far the banks have followed it.

    The file keeps some samples more than the capacity, so that those which a run removes again
    give their places back to the ones they had pushed out.

    Args:
        path: of the file, from the root: a database, or a memory of an earlier release, which
            becomes a database when it is first written to.
        found: what it is.
        keep: tells by the text of a sample of the file whether the banks take it in.
    """

    def __init__(
        self, path: Path, found: Found, keep: Callable[[str | None], bool] | None = None
    ) -> None:
        self.path = path
        self._keep = keep
        self._last = 0
        self._epoch = -1
        if found is Found.DATABASE:
            self._database: Database | None = Database.open(path)
            with self._database.reading() as rows:
                header = rows.header()
            self.banks = Banks(header.capacity, header.dtype)
            self.refresh()
        else:
            self._database, self._old = None, identity(path)
            old = legacy.read(path)
            self.banks = Banks(old.capacity, old.dtype)
            self.banks.load(old.spaces)
        self._closed = False

    @property
    def epoch(self) -> int:
        """Rises whenever samples are removed or the capacity changes."""
        return self._epoch

    def refresh(self) -> None:
        """Take in what other processes committed."""
        if self._database is None:
            if identity(self.path) == self._old:
                return
            self._become_database()
        assert self._database is not None
        if self._database.changed() or self._epoch < 0:
            with self._database.reading() as rows:
                self._take_in(rows)

    def add(self, batch: Batch) -> None:
        """Commit the samples that are not there yet, and add them to the banks."""
        with self._writing() as rows:
            self._take_in(rows)
            if not same_dtype(batch, self.banks.dtype):
                raise StoreError(
                    f"the memory {str(self.path)!r} was replaced by one in {self.banks.dtype}; "
                    "open it again"
                )
            new = self.banks.fresh(batch)
            ids = rows.insert(new)
            self._trim(rows, len(new))
        if ids:
            self._last = ids[-1]
            self.banks.append(new, torch.tensor(ids) - 1)

    def resize(self, capacity: int) -> None:
        """Set the capacity; what is too much goes, from the file too."""
        self.refresh()
        if capacity == self.banks.capacity:
            return
        with self._writing() as rows:
            self._take_in(rows)
            excess = rows.count() - min(capacity, self.banks.capacity)
            if excess > 0:
                rows.drop_oldest(excess)
            rows.change(capacity, self.banks.dtype)
            epoch = rows.header().epoch
        self._epoch = epoch
        self.banks.capacity = capacity
        self.banks.evict()

    def remove(self, matches: Callable[[Label], bool]) -> int:
        """Remove samples by their labels, and return how many."""
        with self._writing() as rows:
            self._take_in(rows)
            found = [key for key, _, label in rows.labels() if matches(label)]
            count = rows.remove(found)
            epoch, held = rows.header().epoch, rows.count()
        if count and held + count <= self.banks.capacity:  # none had been pushed out
            self.banks.remove(matches)
            self._epoch = epoch
        elif count:
            self._epoch = -1
            self.refresh()
        return count

    def add_thumbnails(self, images: Mapping[str, bytes]) -> int:
        """Keep thumbnails of samples that are there, and return how many."""
        with self._writing() as rows:
            return sum(rows.add_thumbnail(item, image) for item, image in images.items())

    def copy_to(self, path: Path) -> None:
        """Write all that the file has to another one, in place of what is there."""
        if self._database is None:
            write_over(path, self.banks)
            return
        with self._database.reading() as rows:
            self._take_in(rows)
            header = rows.header()
            contents = rows.batches(header.dtype)
            _write(path, header.capacity, header.dtype, contents, rows.all_thumbnails())

    def close(self) -> None:
        """Close the file for good."""
        self._closed = True
        if self._database is not None:
            self._database.close()

    def disconnect(self) -> None:
        """Close the file until it is next used."""
        if self._database is not None:
            self._database.disconnect()

    @contextmanager
    def _writing(self) -> Iterator[Rows]:
        if self._closed:
            raise StoreError(
                f"the memory {str(self.path)!r} is closed; open it again with Memory.open"
            )
        if self._database is None:
            creation.migrate(self.path)
            self._become_database()
        assert self._database is not None
        with self._database.writing() as rows:
            yield rows

    def _become_database(self) -> None:
        if look(self.path) is not Found.DATABASE:
            raise StoreError(
                f"the file {str(self.path)!r} was moved, deleted or replaced after this memory was "
                "opened; open it again"
            )
        self._database, self._epoch = Database.open(self.path), -1

    def _take_in(self, rows: Rows) -> None:
        """Follow the file: by its new samples, or from the beginning after a removal."""
        header = rows.header()
        if header.epoch == self._epoch:
            for batch, ids in rows.batches(header.dtype, after=self._last):
                self.banks.append(*self._kept(batch, ids - 1))
                self._last = int(ids[-1])
            return
        self._epoch = -1
        self.banks.clear(header.capacity, header.dtype)
        room = {space.name: space.samples for space in rows.spaces()}
        for batch, ids in rows.batches(header.dtype, after=rows.pushed_out()):
            self.banks.append(*self._kept(batch, ids - 1), room=room[batch.space])
        self._last, self._epoch = rows.last(), header.epoch

    def _kept(self, batch: Batch, numbers: Tensor) -> tuple[Batch, Tensor]:
        if self._keep is None:
            return batch, numbers
        chosen = [i for i, label in enumerate(batch.labels) if self._keep(label.text)]
        return batch.taken(chosen), numbers[chosen]

    def _trim(self, rows: Rows, added: int) -> None:
        """Delete some of the oldest samples where there are too many, at a cost that is bounded."""
        capacity = self.banks.capacity
        most = capacity + max(_SPARE, capacity // _SPARE_SHARE)
        count = rows.count()
        if count > most:
            rows.drop_oldest(min(max(_CHUNK, added), count - most + _CHUNK))


def write_over(path: Path, banks: Banks) -> None:
    """Write the samples of banks to a file, in place of what is there.

    Raises:
        StoreError: when it cannot be written, or what is there is no memory.
    """
    contents = ((batch, numbers + 1) for batch, numbers in banks.contents())
    _write(path, banks.capacity, banks.dtype, contents, ())


def _write(
    path: Path,
    capacity: int,
    dtype: str,
    contents: creation.Contents,
    thumbnails: creation.Thumbnails,
) -> None:
    found = look(path)
    if found is not Found.DATABASE:
        if found is Found.OTHER and path.stat().st_size:
            legacy.read(path)  # nothing but a memory is replaced
        creation.write_copy(path, capacity, dtype, contents, thumbnails)
        return
    database = Database.open(path)
    try:
        with database.writing() as rows:
            shift = rows.last()
            rows.clear()
            rows.change(capacity, dtype)
            for batch, ids in contents:
                rows.insert(batch, (ids + shift).tolist())
            for item, image in thumbnails:
                rows.add_thumbnail(item, image)
    finally:
        database.close()
