"""points2model in Python: what a trained model finds in images, and the masks that it draws at clicks (docs/python.md).

```python
from points2model import Predictor

predictor = Predictor.load("promoted")  # or the folder of a model
found = predictor("photo.jpg")
found.names, found.scores, found.masks.shape
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from points2model.instances import Instances
    from points2model.predictor import Predictor
    from points2model.prompter import Prompter

__all__ = ["Instances", "Predictor", "Prompter"]


def __getattr__(name: str) -> Any:
    """Imports a class when it is first used: torch takes seconds."""
    from importlib import import_module

    if name in __all__:
        from tasks.common.startup import gc_off

        with gc_off():  # else a fifth of these seconds
            module = import_module(f"points2model.{name.lower()}")
        globals()[name] = getattr(module, name)
        return globals()[name]
    raise AttributeError(f"module 'points2model' has no attribute {name!r}")
