"""What never ends, such as requests, is remembered within a limit: the newest of it."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

Key = TypeVar("Key")
Item = TypeVar("Item")


def remember(items: OrderedDict[Key, Item], key: Key, item: Item, most: int) -> Item:
    """Keep the item as the newest one, in place of its key's earlier one, and forget what is beyond `most`.

    Returns the item.
    """
    items[key] = item
    items.move_to_end(key)
    while len(items) > most:
        items.popitem(last=False)
    return item
