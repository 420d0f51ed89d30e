-- The views over the ledger's own table again, same names, lines and columns: what a view remembers to leave out rows that
-- are there twice is now bounded, and what it reads is what it is asked for. LIMIT BY names more columns than the identity
-- (rows of one entry are the same in all of them), so that filters on those reach the table's index and partitions; ORDER BY
-- begins as the table does, so that one line after the other decides, instead of a set of all that was seen.

CREATE OR REPLACE VIEW v_ledger AS
SELECT
    org_id, seq, recorded_at, occurred_at, kind, wallet, amount, balance, available, held,
    operation, category, project_id, user_id, team, department, model, tool, provider, endpoint, deployment,
    input_tokens, output_tokens, quantity, unit_of_measure, replicas, unit_price, output_unit_price, billing_unit,
    reason, actor, counterparty_org_id, event_id, revision, hold_id, correlation_id, details, attributes, source,
    slices, grants, entry_id, source_topic, source_partition, source_offset, ledger_partition, ledger_offset
FROM ledger
ORDER BY org_id, seq, recorded_at, kind, wallet
LIMIT 1 BY org_id, seq, recorded_at, kind, wallet;

CREATE OR REPLACE VIEW v_statement_monthly AS
SELECT
    month,
    org_id,
    wallet,
    argMin(balance - amount, seq) AS opening,
    sumIf(amount, kind IN ('purchase', 'adjustment')) AS purchased,
    sumIf(amount, kind IN ('allowance', 'rollover')) AS allowance,
    sumIf(amount, kind IN ('transfer_in', 'transfer_out', 'transfer_return')) AS transferred,
    sumIf(amount, kind IN ('usage', 'correction')) AS used,
    sumIf(amount, kind = 'refund') AS refunded,
    sumIf(amount, kind = 'expiry') AS expired,
    sum(amount) AS movement,
    argMax(balance, seq) AS closing,
    count() AS entries
FROM
(
    SELECT org_id, wallet, seq, toStartOfMonth(recorded_at) AS month, kind, amount, balance
    FROM ledger
    WHERE wallet != ''
    ORDER BY org_id, seq, wallet, month
    LIMIT 1 BY org_id, seq, wallet, month
)
GROUP BY month, org_id, wallet;

CREATE OR REPLACE VIEW v_entries_hourly AS
SELECT
    hour, wallet, kind, count() AS entries, sum(amount) AS amount, uniqExact(org_id) AS orgs
FROM
(
    SELECT toStartOfHour(recorded_at) AS hour, wallet, kind, amount, org_id, seq
    FROM ledger
    ORDER BY org_id, seq, hour, wallet, kind
    LIMIT 1 BY org_id, seq, hour, wallet, kind
)
GROUP BY hour, wallet, kind;
