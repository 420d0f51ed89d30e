"""How fast and how big, measured on this machine: this ledger, an idiomatic Faust agent and a bare loop.

The rules of this package: the three read the same records from the same topic on the same broker, one after the other.
Nothing is measured from inside the ledger: rates come from the ends of its output topic, latencies from a reader of
committed entries, memory from the operating system. Each figure is shown with its goal, and a figure that misses its
goal is marked.
"""
