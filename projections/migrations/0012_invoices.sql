-- Invoices and credit notes (product rule 24): the n-th completed purchase of an org in seq order is its invoice n, the
-- n-th refund of an invoiced purchase its credit note n. Both are functions of the ledger alone, without gaps, and for ever
-- the same. Gifts and adjustments cost nothing; a charge that failed or was refused bought nothing: none has an invoice.

-- `total` in `currency` is what was paid: what the payment service says; where it says nothing and the wallet counts a
-- currency (three capitals), each credit costs one of it; else it is unknown (NULL).
CREATE OR REPLACE VIEW v_invoices AS
SELECT
    org_id,
    row_number() OVER (PARTITION BY org_id ORDER BY seq) AS number,
    concat(org_id, '-', leftPad(toString(number), greatest(6, length(toString(number))), '0')) AS invoice_id,
    issued_at,
    purchased_at,
    purchase_id,
    wallet,
    credits,
    multiIf(paid IS NOT NULL, paid, in_currency AND paid_in IN ('', wallet), credits, NULL) AS total,
    multiIf(total IS NULL, '', paid_in != '', paid_in, in_currency, wallet, '') AS currency,
    expires_at,
    actor,
    topup_request_id,
    seq
FROM
(
    SELECT
        org_id,
        seq,
        recorded_at AS issued_at,
        occurred_at AS purchased_at,
        purchase_id,
        wallet,
        amount AS credits,
        price_paid AS paid,
        currency AS paid_in,
        match(wallet, '^[A-Z]{3}$') AS in_currency,
        expires_at,
        actor,
        correlation_id AS topup_request_id
    FROM purchases
    WHERE status = 'completed' AND grant_kind = 'purchased'
    LIMIT 1 BY org_id, seq
);

-- A refund is of the last purchase of its id before it: an id that is forgotten may come again. What is paid back is the
-- same share of the total as of the credits. Shares are rounded half up, to a hundredth where the total has no smaller
-- part, so that all notes of an invoice are together the share of all that was refunded so far: in the end, the total.
CREATE OR REPLACE VIEW v_credit_notes AS
SELECT
    org_id,
    row_number() OVER (PARTITION BY org_id ORDER BY seq) AS number,
    concat(org_id, '-C', leftPad(toString(number), greatest(6, length(toString(number))), '0')) AS credit_note_id,
    issued_at,
    refunded_at,
    refund_id,
    invoice_number,
    invoice_id,
    purchase_id,
    wallet,
    credits,
    if(price IS NULL, NULL, toDecimal128(toDecimal256(
        step * (intDiv(2 * price * reached + step * bought, 2 * step * bought)
              - intDiv(2 * price * (reached - given_back) + step * bought, 2 * step * bought)), 9) / 1000000000, 9)) AS total,
    currency,
    actor,
    seq
FROM
(
    SELECT
        back.org_id AS org_id,
        back.seq AS seq,
        back.issued_at AS issued_at,
        back.refunded_at AS refunded_at,
        back.refund_id AS refund_id,
        back.purchase_id AS purchase_id,
        back.credits AS credits,
        back.actor AS actor,
        invoice.number AS invoice_number,
        invoice.invoice_id AS invoice_id,
        invoice.wallet AS wallet,
        invoice.currency AS currency,
        toInt256(back.credits * 1000000000) AS given_back,
        sum(toInt256(back.credits * 1000000000)) OVER (PARTITION BY back.org_id, invoice.seq ORDER BY back.seq) AS reached,
        toInt256(invoice.credits * 1000000000) AS bought,
        toInt256(invoice.total * 1000000000) AS price,
        if(price % 10000000 = 0, 10000000, 1) AS step
    FROM
    (
        SELECT refund.*, purchase.seq AS purchase_seq
        FROM
        (
            SELECT
                org_id, seq, recorded_at AS issued_at, occurred_at AS refunded_at, event_id AS refund_id,
                correlation_id AS purchase_id, -amount AS credits, actor
            FROM activity
            WHERE kind = 'refund' AND reason = 'purchase_refunded'
            LIMIT 1 BY org_id, seq
        ) AS refund
        INNER JOIN
        (
            SELECT DISTINCT org_id, seq, purchase_id FROM purchases WHERE status = 'completed'
        ) AS purchase ON refund.org_id = purchase.org_id AND refund.purchase_id = purchase.purchase_id
        WHERE purchase.seq < refund.seq
        ORDER BY purchase.seq DESC
        LIMIT 1 BY refund.org_id, refund.seq
    ) AS back
    INNER JOIN v_invoices AS invoice ON back.org_id = invoice.org_id AND back.purchase_seq = invoice.seq
);
