-- What moved a wallet's settled balance, one line each, for statements (product rule 24): `movement` is the entry's kind, but
-- gifts are told apart from purchases, and refunds of a purchase (credits taken back) from refunds of usage (given back).
-- Entries that move nothing (holds, settings, refusals, usage of free models) are no movements.
-- Rows that are there twice are the same in every column. LIMIT BY names more of them than the identity, so that filters on
-- those reach the table; ORDER BY is the table's own order, so that neither sorts nor remembers what it has seen.
CREATE OR REPLACE VIEW v_movements AS
SELECT
    org_id,
    seq,
    wallet,
    multiIf(kind = 'refund', reason,
            kind = 'purchase' AND has(grants.kind, 'promotional'), 'promotional',
            kind) AS movement,
    amount,
    balance,
    recorded_at,
    occurred_at,
    event_id,
    actor,
    ledger_partition,
    ledger_offset
FROM ledger
WHERE amount != 0
ORDER BY org_id, seq, wallet, recorded_at, ledger_offset
LIMIT 1 BY org_id, seq, wallet, recorded_at, ledger_offset;
