-- The newest published balance of each wallet; `version` is the record's offset in the balances topic.
CREATE TABLE IF NOT EXISTS balances
(
    org_id         String,
    wallet         LowCardinality(String),
    seq            UInt64,
    as_of          DateTime64(6, 'UTC'),
    settled        Decimal(38, 9),
    held           Decimal(38, 9),
    available      Decimal(38, 9),
    allocation     Decimal(38, 9),
    month_spent    Decimal(38, 9),
    lifetime_added Decimal(38, 9),
    lifetime_spent Decimal(38, 9),
    status         LowCardinality(String),
    health         LowCardinality(String),
    version        Int64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (org_id, wallet);
