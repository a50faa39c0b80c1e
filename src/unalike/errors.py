"""Everything the package raises on purpose.

```
UnalikeError
├── OptionError (ValueError)        an argument, option or setting that is not allowed
├── UnsupportedError                a pipeline, scheduler or combination that cannot be guided
├── AttachmentError (RuntimeError)  attached twice, scheduler replaced meanwhile, stepped outside a
call ├── StoreError                      a memory, shield or run folder that is damaged, of another
kind, or in the way ├── NumericsError (ArithmeticError) the model or the guidance produced NaN or
infinity └── ShieldError                     an image cannot be brought outside the protected set
    └── RefusedError                images of a call are inside the protected set, so they are not
    returned
```

Each message says what was wrong, what is allowed and how to mend it.
"""

from __future__ import annotations

from typing import Any


class UnalikeError(Exception):
    """Base of all errors of this package."""


class OptionError(UnalikeError, ValueError):
    """An argument, option or setting that is not allowed; the message names it and says what is."""


class UnsupportedError(UnalikeError):
    """A pipeline, scheduler or combination that cannot be guided; the message says how to add it
    where that is possible.
    """


class AttachmentError(UnalikeError, RuntimeError):
    """Guidance attached twice, or the scheduler replaced while it was attached."""


class StoreError(UnalikeError):
    """A file or folder that is damaged, of another kind or model, or already there."""


class NumericsError(UnalikeError, ArithmeticError):
    """NaN or infinity from the model or from the guidance; the message names the step."""


class ShieldError(UnalikeError):
    """An image that cannot be brought outside the protected set."""


class RefusedError(ShieldError):
    """Images of a call that are inside the protected set, so they are not returned; the others are,
    with this error.

    Attributes:
        output: what the pipeline returned, the refused images blank in it.
        report: the report of the call, with the certificates of all its images.
        refused: the numbers of the refused images in the batch.
    """

    def __init__(self, message: str, *, output: Any, report: Any, refused: list[int]) -> None:
        super().__init__(message)
        self.output = output
        self.report = report
        self.refused = refused
