"""Read the weights of a model: first every name and shape, then one matrix at a time.

``open_source`` runs a pipeline of three stages, each with a type of its own in ``inventory.py``:

1. A reader (``modules.py``, ``state_dicts.py``, or a file of ``readers/`` for each checkpoint format) lists the tensors of the
   source without loading them: a ``Listing`` of ``StoredTensor``.
2. ``split_into_layers`` decides what each tensor is and cuts it into matrices, or notes why it is not analysed: an
   ``Inventory`` of ``Layer`` and ``Skipped``.
3. ``Layer.load()`` reads one matrix from the source.
"""

from htsr.weights.inventory import Inventory, Layer, Skipped
from htsr.weights.select import select
from htsr.weights.source import open_source

__all__ = ["Inventory", "Layer", "Skipped", "open_source", "select"]
