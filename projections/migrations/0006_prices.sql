-- The price list; the row of the highest version is the price. `deleted`: taken off the list.
CREATE TABLE IF NOT EXISTS prices
(
    price_id         String,
    operation        LowCardinality(String),
    unit_price       Decimal(38, 9),
    billing_unit     LowCardinality(String),
    wallet           LowCardinality(String),
    valid_from       DateTime64(6, 'UTC'),
    valid_to         Nullable(DateTime64(6, 'UTC')),
    category         LowCardinality(String),
    model            LowCardinality(String),
    tool             LowCardinality(String),
    provider         LowCardinality(String),
    direction        LowCardinality(String),
    tier             LowCardinality(String),
    free             Bool,
    org_id           String,
    display_name     String,
    deleted          Bool,
    version          Int64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY price_id;
