-- Every purchase record that the ledger judged: completed, failed or refused. Identity: (org_id, seq).
-- `amount` is what was to be bought; only a completed purchase has added it.
CREATE TABLE IF NOT EXISTS purchases
(
    org_id         String,
    seq            UInt64,
    purchase_id    String,
    status         LowCardinality(String),
    wallet         LowCardinality(String),
    amount         Decimal(38, 9),
    grant_kind     LowCardinality(String),
    price_paid     Nullable(Decimal(38, 9)),
    currency       LowCardinality(String),
    expires_at     Nullable(DateTime64(6, 'UTC')),
    balance        Decimal(38, 9),
    occurred_at    DateTime64(6, 'UTC'),
    recorded_at    DateTime64(6, 'UTC'),
    actor          String,
    reason         LowCardinality(String),
    correlation_id String,
    failure_reason String
)
ENGINE = ReplacingMergeTree
ORDER BY (org_id, seq);
