"""The table of faults: what the system was put through, what must hold, and what a run saw. See `table.py`."""
