-- What is on the way (product rule 22) as part of a balance: credits that left the wallet for other orgs, of which the ledger
-- of the org they left does not know yet that they arrived or came back. Not part of `settled`. 0 in records of version 1,
-- which did not say. `v_on_the_way` has the transfers one by one.
ALTER TABLE balances ADD COLUMN IF NOT EXISTS on_the_way Decimal(38, 9) AFTER available;

-- The view is as it was, but for `on_the_way`.
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
    tupleElement(latest, 11) AS as_of,
    tupleElement(latest, 12) AS on_the_way
FROM
(
    SELECT
        org_id,
        wallet,
        argMax(
            tuple(settled, held, available, allocation, month_spent, lifetime_added, lifetime_spent, status, health,
                  seq, as_of, on_the_way),
            version) AS latest
    FROM balances
    GROUP BY org_id, wallet
);

-- The balance card, too.
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
    balance.as_of AS as_of,
    balance.on_the_way AS on_the_way
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
