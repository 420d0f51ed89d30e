-- Calls over HTTP that a key had no right to (topic refused_calls). Identity: the record's partition and offset.
CREATE TABLE IF NOT EXISTS refused_calls
(
    org_id           String,
    call_partition   UInt32,
    call_offset      Int64,
    occurred_at      DateTime64(6, 'UTC'),
    recorded_at      DateTime64(6, 'UTC'),
    actor            String,
    action           LowCardinality(String),
    path             String,
    reason           LowCardinality(String),
    detail           String,
    repeated         UInt32
)
ENGINE = ReplacingMergeTree
ORDER BY (org_id, call_partition, call_offset);

-- The activity log: what the ledger booked or refused, and what the HTTP interface refused before it (seq 0).
CREATE OR REPLACE VIEW v_activity AS
SELECT
    occurred_at, org_id, seq, actor, action, subject, wallet, amount,
    multiIf(kind = 'rejected', '', kind != 'setting', toString(balance - amount),
            JSONType(details, 'before') IN ('Object', 'Array'), JSONExtractRaw(details, 'before'), '') AS before,
    multiIf(kind = 'rejected', '', kind != 'setting', toString(balance), JSONExtractRaw(details, 'body')) AS after,
    kind = 'rejected' AS refused,
    reason, counterparty_org_id, event_id, correlation_id, details, recorded_at
FROM
(
    SELECT *
    FROM activity
    LIMIT 1 BY org_id, seq
)
UNION ALL
SELECT
    occurred_at, org_id, toUInt64(0) AS seq, actor, action, path AS subject, '' AS wallet,
    toDecimal128(0, 9) AS amount, '' AS before, '' AS after, 1 AS refused,
    reason, '' AS counterparty_org_id, '' AS event_id, '' AS correlation_id,
    toJSONString(map('detail', detail, 'repeated', toString(repeated))) AS details, recorded_at
FROM
(
    SELECT *
    FROM refused_calls
    LIMIT 1 BY org_id, call_partition, call_offset
);
