-- Views for people: one line per thing, right whatever was sent twice and whatever is not merged yet.
-- Each keeps the newest row of an identity (argMax over the version, or LIMIT 1 BY where all rows of it are the same).

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
    tupleElement(latest, 5) - tupleElement(latest, 6) AS net_cost
FROM
(
    SELECT
        hour, org_id, wallet, operation, category, project_id, user_id, team, department,
        model, tool, provider, endpoint, deployment, billing_unit,
        argMax(tuple(requests, input_tokens, output_tokens, quantity, cost, refunded), version) AS latest
    FROM usage_hourly
    GROUP BY
        hour, org_id, wallet, operation, category, project_id, user_id, team, department,
        model, tool, provider, endpoint, deployment, billing_unit, ledger_partition
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
    tupleElement(latest, 5) - tupleElement(latest, 6) AS net_cost
FROM
(
    SELECT
        day, org_id, wallet, operation, category, project_id, user_id, team, department,
        model, tool, provider, endpoint, deployment, billing_unit,
        argMax(tuple(requests, input_tokens, output_tokens, quantity, cost, refunded), version) AS latest
    FROM usage_daily
    GROUP BY
        day, org_id, wallet, operation, category, project_id, user_id, team, department,
        model, tool, provider, endpoint, deployment, billing_unit, ledger_partition
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
    tupleElement(latest, 5) - tupleElement(latest, 6) AS net_cost
FROM
(
    SELECT
        month, org_id, wallet, operation, category, project_id, user_id, team, department,
        model, tool, provider, endpoint, deployment, billing_unit,
        argMax(tuple(requests, input_tokens, output_tokens, quantity, cost, refunded), version) AS latest
    FROM usage_monthly
    GROUP BY
        month, org_id, wallet, operation, category, project_id, user_id, team, department,
        model, tool, provider, endpoint, deployment, billing_unit, ledger_partition
);

CREATE OR REPLACE VIEW v_ledger AS
SELECT
    org_id, seq, recorded_at, occurred_at, kind, wallet, amount, balance, available, held,
    operation, category, project_id, user_id, team, department, model, tool, provider, endpoint, deployment,
    input_tokens, output_tokens, quantity, unit_of_measure, replicas, unit_price, output_unit_price, billing_unit,
    reason, actor, counterparty_org_id, event_id, revision, hold_id, correlation_id, details, attributes, source,
    slices, grants, entry_id, source_topic, source_partition, source_offset, ledger_partition, ledger_offset
FROM ledger
LIMIT 1 BY org_id, seq;

CREATE OR REPLACE VIEW v_balances AS
SELECT
    org_id,
    wallet,
    tupleElement(latest, 1) AS settled,
    tupleElement(latest, 2) AS held,
    tupleElement(latest, 3) AS available,
    tupleElement(latest, 4) AS allocation,
    tupleElement(latest, 5) AS month_spent,
    tupleElement(latest, 6) AS lifetime_added,
    tupleElement(latest, 7) AS lifetime_spent,
    tupleElement(latest, 8) AS status,
    tupleElement(latest, 9) AS health,
    if(allocation > 0, round(toFloat64(available) / toFloat64(allocation) * 100, 2), 0) AS left_percent,
    tupleElement(latest, 10) AS seq,
    tupleElement(latest, 11) AS as_of
FROM
(
    SELECT
        org_id,
        wallet,
        argMax(
            tuple(settled, held, available, allocation, month_spent, lifetime_added, lifetime_spent, status, health,
                  seq, as_of),
            version) AS latest
    FROM balances
    GROUP BY org_id, wallet
);

CREATE OR REPLACE VIEW v_alerts AS
SELECT
    occurred_at, org_id, wallet, kind, rule_id, rule_version, epoch, level, balance, available, used_percent,
    previous_percent, channels, dismissable, message, thresholds_left, entry_seq, alert_id, topic
FROM alerts
LIMIT 1 BY org_id, alert_id;

CREATE OR REPLACE VIEW v_dead_letters AS
SELECT
    recorded_at, code, source_topic, source_partition, source_offset, org_id, message, exception, value_bytes,
    base64Encode(substring(ifNull(value, ''), 1, 256)) AS value_base64
FROM dead_letters
LIMIT 1 BY source_topic, source_partition, source_offset;

CREATE OR REPLACE VIEW v_prices AS
SELECT
    price_id, display_name, operation, category, model, tool, provider, direction, tier, org_id, wallet, unit_price,
    billing_unit, free, valid_from, valid_to
FROM
(
    SELECT *
    FROM prices
    ORDER BY version DESC
    LIMIT 1 BY price_id
)
WHERE NOT deleted;

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
);

CREATE OR REPLACE VIEW v_settings AS
SELECT org_id, action AS kind, subject, JSONExtractRaw(details, 'body') AS body, actor, occurred_at, seq
FROM
(
    SELECT *
    FROM activity
    WHERE kind = 'setting'
    ORDER BY seq DESC
    LIMIT 1 BY org_id, action, subject
);

CREATE OR REPLACE VIEW v_purchases AS
SELECT
    purchase.occurred_at AS occurred_at,
    purchase.org_id AS org_id,
    purchase_id,
    status,
    purchase.wallet AS wallet,
    purchase.amount AS amount,
    ifNull(back.amount, toDecimal128(0, 9)) AS refunded,
    grant_kind,
    price_paid,
    currency,
    expires_at,
    purchase.actor AS actor,
    purchase.reason AS reason,
    purchase.failure_reason AS failure_reason,
    purchase.correlation_id AS topup_request_id,
    purchase.seq AS seq,
    purchase.recorded_at AS recorded_at
FROM
(
    SELECT *
    FROM purchases
    LIMIT 1 BY org_id, seq
) AS purchase
LEFT JOIN
(
    SELECT org_id, correlation_id, -sum(amount) AS amount
    FROM
    (
        SELECT org_id, correlation_id, amount
        FROM activity
        WHERE kind = 'refund' AND amount < 0
        LIMIT 1 BY org_id, seq
    )
    GROUP BY org_id, correlation_id
) AS back ON back.org_id = purchase.org_id AND back.correlation_id = purchase.purchase_id AND purchase.status = 'completed';

CREATE OR REPLACE VIEW v_statement_monthly AS
SELECT
    month,
    org_id,
    wallet,
    argMin(balance - amount, seq) AS opening,
    sumIf(amount, kind IN ('purchase', 'adjustment')) AS purchased,
    sumIf(amount, kind IN ('allowance', 'rollover')) AS allowance,
    sumIf(amount, kind IN ('transfer_in', 'transfer_out', 'transfer_return')) AS transferred,
    sumIf(amount, kind IN ('usage', 'correction')) AS used,
    sumIf(amount, kind = 'refund') AS refunded,
    sumIf(amount, kind = 'expiry') AS expired,
    sum(amount) AS movement,
    argMax(balance, seq) AS closing,
    count() AS entries
FROM
(
    SELECT org_id, wallet, seq, toStartOfMonth(recorded_at) AS month, kind, amount, balance
    FROM ledger
    WHERE wallet != ''
    LIMIT 1 BY org_id, seq
)
GROUP BY month, org_id, wallet;

CREATE OR REPLACE VIEW v_entries_hourly AS
SELECT
    hour, wallet, kind, count() AS entries, sum(amount) AS amount, uniqExact(org_id) AS orgs
FROM
(
    SELECT toStartOfHour(recorded_at) AS hour, wallet, kind, amount, org_id
    FROM ledger
    LIMIT 1 BY org_id, seq
)
GROUP BY hour, wallet, kind;

CREATE OR REPLACE VIEW v_freshness AS
SELECT topic, partition, position, as_of
FROM
(
    SELECT *
    FROM positions
    ORDER BY position DESC
    LIMIT 1 BY topic, partition
);
