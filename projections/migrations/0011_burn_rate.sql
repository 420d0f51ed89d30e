-- Balance, burn rate and forecast of depletion (product rule 31). The burn rate is the usage of the seven days before the
-- newest projected entry, net of corrections and refunds; credits that were added do not change it.
CREATE OR REPLACE VIEW v_burn_rate AS
SELECT
    balance.org_id AS org_id,
    balance.wallet AS wallet,
    balance.available AS available,
    ifNull(spent.last_day, toDecimal128(0, 9)) AS spent_last_day,
    ifNull(spent.last_week, toDecimal128(0, 9)) AS spent_last_week,
    toDecimal128(spent_last_week / 7, 9) AS spent_per_day,
    if(spent_per_day > 0, greatest(round(toFloat64(balance.available) / toFloat64(spent_per_day), 1), 0), NULL)
        AS days_left,
    balance.as_of AS as_of
FROM v_balances AS balance
LEFT JOIN
(
    SELECT
        org_id,
        wallet,
        sumIf(net_cost, hour > (SELECT max(as_of) FROM v_freshness WHERE endsWith(topic, 'credits.ledger.v1')) - INTERVAL 1 DAY)
            AS last_day,
        sum(net_cost) AS last_week
    FROM v_usage_hourly
    WHERE hour > (SELECT max(as_of) FROM v_freshness WHERE endsWith(topic, 'credits.ledger.v1')) - INTERVAL 7 DAY
    GROUP BY org_id, wallet
) AS spent ON spent.org_id = balance.org_id AND spent.wallet = balance.wallet;
