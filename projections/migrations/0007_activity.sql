-- Who did what: purchases, transfers, refunds, adjustments, settings, and the tries that were refused.
-- Taken from the ledger's entries; identity: (org_id, seq). `subject` names the one thing a setting is about.
CREATE TABLE IF NOT EXISTS activity
(
    org_id              String,
    seq                 UInt64,
    kind                LowCardinality(String),
    action              LowCardinality(String),
    subject             String,
    wallet              LowCardinality(String),
    amount              Decimal(38, 9),
    balance             Decimal(38, 9),
    occurred_at         DateTime64(6, 'UTC'),
    recorded_at         DateTime64(6, 'UTC'),
    actor               String,
    reason              LowCardinality(String),
    event_id            String,
    correlation_id      String,
    counterparty_org_id String,
    details             String
)
ENGINE = ReplacingMergeTree
ORDER BY (org_id, seq);
