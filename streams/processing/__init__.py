"""The ledger agent: gather, decide and apply, over batches in columns."""
