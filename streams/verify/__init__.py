"""A second opinion: the whole ledger counted again by code that shares nothing with the ledger's own.

The rules of this package: it imports neither the ledger nor the engine, only the contract (`schemas`) and the readers.
What it says rests on committed records alone. It changes nothing.
"""
