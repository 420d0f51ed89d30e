-- Records that could not be booked. Identity: where the record stood in its input topic.
-- `value` holds the first 65,536 bytes; the dead letter topic has them all.
CREATE TABLE IF NOT EXISTS dead_letters
(
    source_topic       LowCardinality(String),
    source_partition   Int32,
    source_offset      Int64,
    code               LowCardinality(String),
    org_id             String,
    exception          String,
    message            String,
    recorded_at        DateTime64(6, 'UTC'),
    value              Nullable(String),
    value_bytes        UInt64,
    letter_partition   UInt32,
    letter_offset      Int64
)
ENGINE = ReplacingMergeTree(letter_offset)
ORDER BY (source_topic, source_partition, source_offset);
