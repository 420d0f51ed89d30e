-- What a page about one organisation shows first.

-- The balance card (product rule 29): balance, low badge, lifetime added and spent, and the five latest movements, newest
-- first. `low`: at or below the low balance line.
CREATE OR REPLACE VIEW v_balance_cards AS
SELECT
    balance.org_id AS org_id,
    balance.wallet AS wallet,
    balance.settled AS settled,
    balance.available AS available,
    CAST(balance.status IN ('low', 'depleted', 'negative') AS Bool) AS low,
    balance.status AS status,
    balance.lifetime_added AS lifetime_added,
    balance.lifetime_spent AS lifetime_spent,
    latest.movements AS movements,
    balance.as_of AS as_of
FROM v_balances AS balance
LEFT JOIN
(
    SELECT
        org_id,
        wallet,
        arrayReverseSort(each -> each.seq, groupArray(
            CAST(tuple(seq, recorded_at, movement, amount, balance),
                 'Tuple(seq UInt64, recorded_at DateTime64(6, \'UTC\'), movement String, amount Decimal(38, 9), balance Decimal(38, 9))')
        )) AS movements
    FROM
    (
        SELECT org_id, wallet, seq, recorded_at, movement, amount, balance
        FROM v_movements
        ORDER BY org_id DESC, seq DESC
        LIMIT 5 BY org_id, wallet
    )
    GROUP BY org_id, wallet
) AS latest ON latest.org_id = balance.org_id AND latest.wallet = balance.wallet;

-- The month so far (product rule 30): used, the alert threshold and the allowed limit that the org has set (NULL: none), and
-- what remains up to the limit. The month is the ledger's, in the org's time zone.
CREATE OR REPLACE VIEW v_month_so_far AS
SELECT
    balance.org_id AS org_id,
    balance.wallet AS wallet,
    balance.month_spent AS used,
    limits.alert_threshold AS alert_threshold,
    limits.allowed_limit AS allowed_limit,
    limits.allowed_limit - balance.month_spent AS remaining,
    balance.status AS status,
    balance.health AS health,
    balance.as_of AS as_of
FROM v_balances AS balance
LEFT JOIN
(
    SELECT
        org_id,
        subject AS wallet,
        toDecimal128OrNull(JSONExtractString(body, 'alert_threshold'), 9) AS alert_threshold,
        toDecimal128OrNull(JSONExtractString(body, 'allowed_limit'), 9) AS allowed_limit
    FROM v_settings
    WHERE kind = 'month_limits'
) AS limits ON limits.org_id = balance.org_id AND limits.wallet = balance.wallet;
