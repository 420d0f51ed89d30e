-- The balance card's low badge again: the view is as it was, but for `low`.

-- `low` (product rules 28, 29): at or below the low balance line. Where the status says so, it is the status; a status
-- that says something worse (the limit of the month is reached, the wallet is blocked) hides whether the balance is low as
-- well, and then the available balance is compared with the line that the settings in force give: the threshold of auto
-- top-up where that is on, else the wallet's low balance threshold, else 10. The defaults are those of the settings'
-- bodies (`schemas/settings_bodies.py`).
CREATE OR REPLACE VIEW v_balance_cards AS
SELECT
    balance.org_id AS org_id,
    balance.wallet AS wallet,
    balance.settled AS settled,
    balance.available AS available,
    CAST(
        balance.status IN ('low', 'depleted', 'negative')
        OR (balance.status IN ('limit_reached', 'blocked')
            AND balance.available <= coalesce(line.topup_threshold, line.low_balance_threshold, toDecimal128(10, 9)))
        AS Bool) AS low,
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
) AS latest ON latest.org_id = balance.org_id AND latest.wallet = balance.wallet
LEFT JOIN
(
    SELECT
        org_id,
        subject AS wallet,
        maxIf(toNullable(ifNull(toDecimal128OrNull(JSONExtractString(body, 'threshold'), 9), toDecimal128(0, 9))),
              kind = 'auto_topup' AND JSONExtractBool(body, 'enabled')) AS topup_threshold,
        maxIf(toDecimal128OrNull(JSONExtractString(body, 'low_balance_threshold'), 9), kind = 'wallet')
            AS low_balance_threshold
    FROM v_settings
    WHERE kind IN ('auto_topup', 'wallet')
    GROUP BY org_id, wallet
) AS line ON line.org_id = balance.org_id AND line.wallet = balance.wallet;
