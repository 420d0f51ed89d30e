"""The pages under `/ui`: what the ledger and its read side know, for people."""
