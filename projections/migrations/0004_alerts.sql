-- Every alert, once. Identity: (org_id, alert_id); the same crossing has the same id for ever.
CREATE TABLE IF NOT EXISTS alerts
(
    org_id           String,
    alert_id         String,
    wallet           LowCardinality(String),
    kind             LowCardinality(String),
    rule_id          String,
    rule_version     Int32,
    epoch            Int64,
    level            String,
    balance          Decimal(38, 9),
    available        Decimal(38, 9),
    used_percent     Nullable(Float64),
    previous_percent Nullable(Float64),
    occurred_at      DateTime64(6, 'UTC'),
    entry_seq        UInt64,
    channels         Array(LowCardinality(String)),
    dismissable      Bool,
    message          String,
    thresholds_left  Array(String),
    topic            LowCardinality(String)
)
ENGINE = ReplacingMergeTree
ORDER BY (org_id, alert_id);
