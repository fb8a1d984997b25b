"""Where matrices come from: names and shapes first, then one matrix at a time."""

from htsr.weights.inventory import Inventory, Layer, Skipped
from htsr.weights.select import select
from htsr.weights.source import open_source

__all__ = ["Inventory", "Layer", "Skipped", "open_source", "select"]
