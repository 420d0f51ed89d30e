-- Usage by its parts (product rules 35 and 39). The buckets of usage know the named parts of the tokens; buckets that were
-- written before have 0 of them, as their usage had.
ALTER TABLE usage_hourly ADD COLUMN IF NOT EXISTS cache_read_tokens Decimal(38, 0);
ALTER TABLE usage_hourly ADD COLUMN IF NOT EXISTS cache_write_tokens Decimal(38, 0);
ALTER TABLE usage_hourly ADD COLUMN IF NOT EXISTS cache_write_1h_tokens Decimal(38, 0);
ALTER TABLE usage_hourly ADD COLUMN IF NOT EXISTS output_reasoning_tokens Decimal(38, 0);
ALTER TABLE usage_hourly ADD COLUMN IF NOT EXISTS input_audio_tokens Decimal(38, 0);
ALTER TABLE usage_hourly ADD COLUMN IF NOT EXISTS output_audio_tokens Decimal(38, 0);
ALTER TABLE usage_hourly ADD COLUMN IF NOT EXISTS input_image_tokens Decimal(38, 0);
ALTER TABLE usage_hourly ADD COLUMN IF NOT EXISTS output_image_tokens Decimal(38, 0);
ALTER TABLE usage_daily ADD COLUMN IF NOT EXISTS cache_read_tokens Decimal(38, 0);
ALTER TABLE usage_daily ADD COLUMN IF NOT EXISTS cache_write_tokens Decimal(38, 0);
ALTER TABLE usage_daily ADD COLUMN IF NOT EXISTS cache_write_1h_tokens Decimal(38, 0);
ALTER TABLE usage_daily ADD COLUMN IF NOT EXISTS output_reasoning_tokens Decimal(38, 0);
ALTER TABLE usage_daily ADD COLUMN IF NOT EXISTS input_audio_tokens Decimal(38, 0);
ALTER TABLE usage_daily ADD COLUMN IF NOT EXISTS output_audio_tokens Decimal(38, 0);
ALTER TABLE usage_daily ADD COLUMN IF NOT EXISTS input_image_tokens Decimal(38, 0);
ALTER TABLE usage_daily ADD COLUMN IF NOT EXISTS output_image_tokens Decimal(38, 0);
ALTER TABLE usage_monthly ADD COLUMN IF NOT EXISTS cache_read_tokens Decimal(38, 0);
ALTER TABLE usage_monthly ADD COLUMN IF NOT EXISTS cache_write_tokens Decimal(38, 0);
ALTER TABLE usage_monthly ADD COLUMN IF NOT EXISTS cache_write_1h_tokens Decimal(38, 0);
ALTER TABLE usage_monthly ADD COLUMN IF NOT EXISTS output_reasoning_tokens Decimal(38, 0);
ALTER TABLE usage_monthly ADD COLUMN IF NOT EXISTS input_audio_tokens Decimal(38, 0);
ALTER TABLE usage_monthly ADD COLUMN IF NOT EXISTS output_audio_tokens Decimal(38, 0);
ALTER TABLE usage_monthly ADD COLUMN IF NOT EXISTS input_image_tokens Decimal(38, 0);
ALTER TABLE usage_monthly ADD COLUMN IF NOT EXISTS output_image_tokens Decimal(38, 0);

-- Each component of usage by day and meter: absolute values, versioned like the buckets of usage. `cost` is net of
-- corrections. `cost_as_total` is what a part of the tokens would have cost at the price of its total.
CREATE TABLE IF NOT EXISTS usage_meters_daily
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
    meter            LowCardinality(String),
    requests         Int64,
    quantity         Decimal(38, 9),
    cost             Decimal(38, 9),
    cost_as_total    Decimal(38, 9),
    entries          UInt64,
    ledger_partition UInt32,
    version          Int64
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYear(day)
ORDER BY (org_id, day, dims_id);

CREATE OR REPLACE VIEW v_usage_hourly AS
SELECT
    hour,
    org_id,
    wallet,
    operation,
    category,
    project_id,
    user_id,
    team,
    department,
    model,
    tool,
    provider,
    endpoint,
    deployment,
    billing_unit,
    tupleElement(latest, 1) AS requests,
    tupleElement(latest, 2) AS input_tokens,
    tupleElement(latest, 3) AS output_tokens,
    tupleElement(latest, 4) AS quantity,
    tupleElement(latest, 5) AS cost,
    tupleElement(latest, 6) AS refunded,
    tupleElement(latest, 5) - tupleElement(latest, 6) AS net_cost,
    tupleElement(latest, 7) AS cache_read_tokens,
    tupleElement(latest, 8) AS cache_write_tokens,
    tupleElement(latest, 9) AS cache_write_1h_tokens,
    tupleElement(latest, 10) AS output_reasoning_tokens,
    tupleElement(latest, 11) AS input_audio_tokens,
    tupleElement(latest, 12) AS output_audio_tokens,
    tupleElement(latest, 13) AS input_image_tokens,
    tupleElement(latest, 14) AS output_image_tokens
FROM
(
    SELECT
        hour, org_id, wallet, operation, category, project_id, user_id, team, department, model, tool, provider, endpoint, deployment, billing_unit,
        argMax(tuple(
            requests, input_tokens, output_tokens, quantity, cost, refunded,
            cache_read_tokens, cache_write_tokens, cache_write_1h_tokens, output_reasoning_tokens,
            input_audio_tokens, output_audio_tokens, input_image_tokens, output_image_tokens), version) AS latest
    FROM usage_hourly
    GROUP BY hour, org_id, wallet, operation, category, project_id, user_id, team, department, model, tool, provider, endpoint, deployment, billing_unit, ledger_partition
);

CREATE OR REPLACE VIEW v_usage_daily AS
SELECT
    day,
    org_id,
    wallet,
    operation,
    category,
    project_id,
    user_id,
    team,
    department,
    model,
    tool,
    provider,
    endpoint,
    deployment,
    billing_unit,
    tupleElement(latest, 1) AS requests,
    tupleElement(latest, 2) AS input_tokens,
    tupleElement(latest, 3) AS output_tokens,
    tupleElement(latest, 4) AS quantity,
    tupleElement(latest, 5) AS cost,
    tupleElement(latest, 6) AS refunded,
    tupleElement(latest, 5) - tupleElement(latest, 6) AS net_cost,
    tupleElement(latest, 7) AS cache_read_tokens,
    tupleElement(latest, 8) AS cache_write_tokens,
    tupleElement(latest, 9) AS cache_write_1h_tokens,
    tupleElement(latest, 10) AS output_reasoning_tokens,
    tupleElement(latest, 11) AS input_audio_tokens,
    tupleElement(latest, 12) AS output_audio_tokens,
    tupleElement(latest, 13) AS input_image_tokens,
    tupleElement(latest, 14) AS output_image_tokens
FROM
(
    SELECT
        day, org_id, wallet, operation, category, project_id, user_id, team, department, model, tool, provider, endpoint, deployment, billing_unit,
        argMax(tuple(
            requests, input_tokens, output_tokens, quantity, cost, refunded,
            cache_read_tokens, cache_write_tokens, cache_write_1h_tokens, output_reasoning_tokens,
            input_audio_tokens, output_audio_tokens, input_image_tokens, output_image_tokens), version) AS latest
    FROM usage_daily
    GROUP BY day, org_id, wallet, operation, category, project_id, user_id, team, department, model, tool, provider, endpoint, deployment, billing_unit, ledger_partition
);

CREATE OR REPLACE VIEW v_usage_monthly AS
SELECT
    month,
    org_id,
    wallet,
    operation,
    category,
    project_id,
    user_id,
    team,
    department,
    model,
    tool,
    provider,
    endpoint,
    deployment,
    billing_unit,
    tupleElement(latest, 1) AS requests,
    tupleElement(latest, 2) AS input_tokens,
    tupleElement(latest, 3) AS output_tokens,
    tupleElement(latest, 4) AS quantity,
    tupleElement(latest, 5) AS cost,
    tupleElement(latest, 6) AS refunded,
    tupleElement(latest, 5) - tupleElement(latest, 6) AS net_cost,
    tupleElement(latest, 7) AS cache_read_tokens,
    tupleElement(latest, 8) AS cache_write_tokens,
    tupleElement(latest, 9) AS cache_write_1h_tokens,
    tupleElement(latest, 10) AS output_reasoning_tokens,
    tupleElement(latest, 11) AS input_audio_tokens,
    tupleElement(latest, 12) AS output_audio_tokens,
    tupleElement(latest, 13) AS input_image_tokens,
    tupleElement(latest, 14) AS output_image_tokens
FROM
(
    SELECT
        month, org_id, wallet, operation, category, project_id, user_id, team, department, model, tool, provider, endpoint, deployment, billing_unit,
        argMax(tuple(
            requests, input_tokens, output_tokens, quantity, cost, refunded,
            cache_read_tokens, cache_write_tokens, cache_write_1h_tokens, output_reasoning_tokens,
            input_audio_tokens, output_audio_tokens, input_image_tokens, output_image_tokens), version) AS latest
    FROM usage_monthly
    GROUP BY month, org_id, wallet, operation, category, project_id, user_id, team, department, model, tool, provider, endpoint, deployment, billing_unit, ledger_partition
);

CREATE OR REPLACE VIEW v_usage_meters_daily AS
SELECT
    day,
    org_id,
    wallet,
    operation,
    category,
    project_id,
    user_id,
    team,
    department,
    model,
    tool,
    provider,
    endpoint,
    deployment,
    meter,
    tupleElement(latest, 1) AS requests,
    tupleElement(latest, 2) AS quantity,
    tupleElement(latest, 3) AS cost,
    tupleElement(latest, 4) AS cost_as_total
FROM
(
    SELECT
        day, org_id, wallet, operation, category, project_id, user_id, team, department, model, tool, provider, endpoint, deployment, meter,
        argMax(tuple(requests, quantity, cost, cost_as_total), version) AS latest
    FROM usage_meters_daily
    GROUP BY day, org_id, wallet, operation, category, project_id, user_id, team, department, model, tool, provider, endpoint, deployment, meter, ledger_partition
);

-- What reading from a cache has saved, by model: what the tokens would have cost as other input, less what they cost.
CREATE OR REPLACE VIEW v_cache_savings AS
SELECT
    day,
    org_id,
    wallet,
    provider,
    model,
    sum(quantity) AS cached_tokens,
    sum(cost) AS cached_cost,
    sum(cost_as_total) AS cost_without_cache,
    sum(cost_as_total) - sum(cost) AS saved
FROM v_usage_meters_daily
WHERE meter LIKE 'cache%read_tokens'
GROUP BY day, org_id, wallet, provider, model;

-- The ledger and the prices with what they know since version 2.
CREATE OR REPLACE VIEW v_ledger AS
SELECT
    org_id, seq, recorded_at, occurred_at, kind, wallet, amount, balance, available, held,
    operation, category, project_id, user_id, team, department, model, tool, provider, endpoint, deployment,
    input_tokens, output_tokens, quantity, unit_of_measure, replicas, unit_price, output_unit_price, billing_unit,
    reason, actor, counterparty_org_id, event_id, revision, hold_id, correlation_id, details, attributes, source,
    slices, grants, entry_id, source_topic, source_partition, source_offset, ledger_partition, ledger_offset,
    cache_read_tokens, cache_write_tokens, cache_write_1h_tokens, output_reasoning_tokens,
    input_audio_tokens, output_audio_tokens, input_image_tokens, output_image_tokens,
    quantities, service_tier, components
FROM ledger
ORDER BY org_id, seq, recorded_at, kind, wallet
LIMIT 1 BY org_id, seq, recorded_at, kind, wallet;

CREATE OR REPLACE VIEW v_prices AS
SELECT
    price_id, display_name, operation, category, model, tool, provider, direction, tier, org_id, wallet, unit_price,
    billing_unit, free, valid_from, valid_to, meter, service_tier, input_tokens_above, aliases, tiers, free_quantity,
    package_size, minimum, factor
FROM
(
    SELECT *
    FROM prices
    ORDER BY version DESC
    LIMIT 1 BY price_id
)
WHERE NOT deleted;
