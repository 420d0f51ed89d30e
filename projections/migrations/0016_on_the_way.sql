-- Credits that left for another org, and of which the ledger of the org they left does not know yet that they arrived or
-- came back (product rule 22): usually for less than a second. An answer is a transfer_out of amount 0 (they arrived) or a
-- transfer_return. A transfer's id may be used again after 35 days, so the latest entry of an id says where it stands.
-- Rows that are there twice are the same, and argMax does not count them.
CREATE OR REPLACE VIEW v_on_the_way AS
SELECT
    org_id,
    target AS target_org_id,
    unit AS wallet,
    -moved AS amount,
    left_at AS since,
    transfer_id,
    sender AS actor,
    latest_seq AS seq
FROM
(
    SELECT
        org_id,
        event_id AS transfer_id,
        argMax(counterparty_org_id, seq) AS target,
        argMax(wallet, seq) AS unit,
        argMax(amount, seq) AS moved,
        argMax(recorded_at, seq) AS left_at,
        argMax(actor, seq) AS sender,
        max(seq) AS latest_seq
    FROM ledger
    WHERE kind IN ('transfer_out', 'transfer_return')
    GROUP BY org_id, event_id
)
WHERE moved < 0;
