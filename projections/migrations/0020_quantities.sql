-- Prices as the world has them (product rules 35-39): the named parts of the tokens, quantities by the name of their meter,
-- the service tier, and how the cost of a usage came to be. Nothing of it is known of entries and prices of version 1.
ALTER TABLE ledger ADD COLUMN IF NOT EXISTS cache_read_tokens Int64;
ALTER TABLE ledger ADD COLUMN IF NOT EXISTS cache_write_tokens Int64;
ALTER TABLE ledger ADD COLUMN IF NOT EXISTS cache_write_1h_tokens Int64;
ALTER TABLE ledger ADD COLUMN IF NOT EXISTS output_reasoning_tokens Int64;
ALTER TABLE ledger ADD COLUMN IF NOT EXISTS input_audio_tokens Int64;
ALTER TABLE ledger ADD COLUMN IF NOT EXISTS output_audio_tokens Int64;
ALTER TABLE ledger ADD COLUMN IF NOT EXISTS input_image_tokens Int64;
ALTER TABLE ledger ADD COLUMN IF NOT EXISTS output_image_tokens Int64;
ALTER TABLE ledger ADD COLUMN IF NOT EXISTS quantities Map(String, Decimal(38, 9));
ALTER TABLE ledger ADD COLUMN IF NOT EXISTS service_tier LowCardinality(String);
ALTER TABLE ledger ADD COLUMN IF NOT EXISTS components Array(Tuple(
    meter LowCardinality(String),
    quantity Decimal(38, 9),
    unit_price Decimal(38, 9),
    billing_unit LowCardinality(String),
    price_id String,
    amount Decimal(38, 9)));

ALTER TABLE prices ADD COLUMN IF NOT EXISTS meter LowCardinality(String);
ALTER TABLE prices ADD COLUMN IF NOT EXISTS service_tier LowCardinality(String);
ALTER TABLE prices ADD COLUMN IF NOT EXISTS input_tokens_above Nullable(Int64);
ALTER TABLE prices ADD COLUMN IF NOT EXISTS aliases Array(String);
ALTER TABLE prices ADD COLUMN IF NOT EXISTS tiers Array(Tuple(
    up_to Nullable(Decimal(38, 9)),
    unit_price Decimal(38, 9)));
ALTER TABLE prices ADD COLUMN IF NOT EXISTS free_quantity Nullable(Decimal(38, 9));
ALTER TABLE prices ADD COLUMN IF NOT EXISTS package_size Nullable(Decimal(38, 9));
ALTER TABLE prices ADD COLUMN IF NOT EXISTS minimum Nullable(Decimal(38, 9));
ALTER TABLE prices ADD COLUMN IF NOT EXISTS factor Nullable(Decimal(38, 9));
