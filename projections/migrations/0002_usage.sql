-- Usage by bucket of time and dimensions. Each row is a bucket's whole value, never a difference: `version` is the ledger
-- offset of the last entry in it, and the row of the highest version is the bucket. `dims_id` is the hash of the ledger
-- partition, org, wallet and all dimensions. Buckets are UTC. `cost` is net of corrections; `refunded` is not taken off it.
CREATE TABLE IF NOT EXISTS usage_hourly
(
    org_id           String,
    hour             DateTime('UTC'),
    dims_id          FixedString(16),
    wallet           LowCardinality(String),
    operation        LowCardinality(String),
    category         LowCardinality(String),
    project_id       String,
    user_id          String,
    team             LowCardinality(String),
    department       LowCardinality(String),
    model            LowCardinality(String),
    tool             LowCardinality(String),
    provider         LowCardinality(String),
    endpoint         String,
    deployment       String,
    billing_unit     LowCardinality(String),
    requests         Int64,
    input_tokens     Decimal(38, 0),
    output_tokens    Decimal(38, 0),
    quantity         Decimal(38, 9),
    cost             Decimal(38, 9),
    refunded         Decimal(38, 9),
    entries          UInt64,
    ledger_partition UInt32,
    version          Int64
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(hour)
ORDER BY (org_id, hour, dims_id);

CREATE TABLE IF NOT EXISTS usage_daily
(
    org_id           String,
    day              Date,
    dims_id          FixedString(16),
    wallet           LowCardinality(String),
    operation        LowCardinality(String),
    category         LowCardinality(String),
    project_id       String,
    user_id          String,
    team             LowCardinality(String),
    department       LowCardinality(String),
    model            LowCardinality(String),
    tool             LowCardinality(String),
    provider         LowCardinality(String),
    endpoint         String,
    deployment       String,
    billing_unit     LowCardinality(String),
    requests         Int64,
    input_tokens     Decimal(38, 0),
    output_tokens    Decimal(38, 0),
    quantity         Decimal(38, 9),
    cost             Decimal(38, 9),
    refunded         Decimal(38, 9),
    entries          UInt64,
    ledger_partition UInt32,
    version          Int64
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYear(day)
ORDER BY (org_id, day, dims_id);

CREATE TABLE IF NOT EXISTS usage_monthly
(
    org_id           String,
    month            Date,
    dims_id          FixedString(16),
    wallet           LowCardinality(String),
    operation        LowCardinality(String),
    category         LowCardinality(String),
    project_id       String,
    user_id          String,
    team             LowCardinality(String),
    department       LowCardinality(String),
    model            LowCardinality(String),
    tool             LowCardinality(String),
    provider         LowCardinality(String),
    endpoint         String,
    deployment       String,
    billing_unit     LowCardinality(String),
    requests         Int64,
    input_tokens     Decimal(38, 0),
    output_tokens    Decimal(38, 0),
    quantity         Decimal(38, 9),
    cost             Decimal(38, 9),
    refunded         Decimal(38, 9),
    entries          UInt64,
    ledger_partition UInt32,
    version          Int64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (org_id, month, dims_id);
