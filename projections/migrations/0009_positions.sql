-- How far each topic is projected: everything before `position` is in the tables above. Written last, after the rows.
-- `as_of`: the time of the newest record in it.
CREATE TABLE IF NOT EXISTS positions
(
    topic     LowCardinality(String),
    partition UInt32,
    position  Int64,
    as_of     DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(position)
ORDER BY (topic, partition);
