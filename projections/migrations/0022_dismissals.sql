-- Alerts that a person has dismissed, and who (topic credits.internal.dismissals.v1). Identity: the alert.
CREATE TABLE IF NOT EXISTS dismissals
(
    org_id       String,
    alert_id     String,
    dismissed_at DateTime64(6, 'UTC'),
    actor        String,
    version      Int64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (org_id, alert_id);

-- The activity log, with what it had and the dismissals (seq 0).
CREATE OR REPLACE VIEW v_activity AS
SELECT
    occurred_at, org_id, seq, actor, action, subject, wallet, amount,
    multiIf(kind = 'rejected', '', kind != 'setting', toString(balance - amount),
            JSONType(details, 'before') IN ('Object', 'Array'), JSONExtractRaw(details, 'before'), '') AS before,
    multiIf(kind = 'rejected', '', kind != 'setting', toString(balance), JSONExtractRaw(details, 'body')) AS after,
    kind = 'rejected' AS refused,
    reason, counterparty_org_id, event_id, correlation_id, details, recorded_at
FROM
(
    SELECT *
    FROM activity
    LIMIT 1 BY org_id, seq
)
UNION ALL
SELECT
    occurred_at, org_id, toUInt64(0) AS seq, actor, action, path AS subject, '' AS wallet,
    toDecimal128(0, 9) AS amount, '' AS before, '' AS after, 1 AS refused,
    reason, '' AS counterparty_org_id, '' AS event_id, '' AS correlation_id,
    toJSONString(map('detail', detail, 'repeated', toString(repeated))) AS details, recorded_at
FROM
(
    SELECT *
    FROM refused_calls
    LIMIT 1 BY org_id, call_partition, call_offset
)
UNION ALL
SELECT
    dismissed_at AS occurred_at, org_id, toUInt64(0) AS seq, actor, 'alert_dismissed' AS action, alert_id AS subject,
    '' AS wallet, toDecimal128(0, 9) AS amount, '' AS before, '' AS after, 0 AS refused,
    '' AS reason, '' AS counterparty_org_id, '' AS event_id, '' AS correlation_id, '' AS details,
    dismissed_at AS recorded_at
FROM
(
    SELECT *
    FROM dismissals
    ORDER BY version DESC
    LIMIT 1 BY org_id, alert_id
);
