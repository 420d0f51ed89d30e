-- Dead letters whose records were sent again (topic replays): when, and where the record lies now. Identity: the letter.
CREATE TABLE IF NOT EXISTS replays
(
    letter_partition UInt32,
    letter_offset    Int64,
    replayed_at      DateTime64(6, 'UTC'),
    topic            LowCardinality(String),
    partition        Int32,
    offset           Int64,
    version          Int64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (letter_partition, letter_offset);

-- Beside what it was: how the letter stands. A record that was sent again and failed again has a letter of its own.
CREATE OR REPLACE VIEW v_dead_letters AS
SELECT
    recorded_at, code, source_topic, source_partition, source_offset, org_id, message, exception, value_bytes,
    base64Encode(substring(ifNull(value, ''), 1, 256)) AS value_base64,
    concat(toString(letter_partition), ':', toString(letter_offset)) AS letter_id,
    multiIf(
        replay.topic = '', 'open',
        (replay.topic, replay.partition, replay.offset) IN
            (SELECT source_topic, source_partition, source_offset FROM dead_letters), 'failed_again',
        'replayed') AS state,
    if(replay.topic = '', NULL, replay.replayed_at) AS replayed_at
FROM
(
    SELECT *
    FROM dead_letters
    LIMIT 1 BY source_topic, source_partition, source_offset
) AS letter
LEFT JOIN
(
    SELECT *
    FROM replays
    ORDER BY version DESC
    LIMIT 1 BY letter_partition, letter_offset
) AS replay ON replay.letter_partition = letter.letter_partition AND replay.letter_offset = letter.letter_offset;
