"""What a balance looks like to who asks: the document of the CLI and the API, its words in OpenAPI, the table."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI

from streams.api.balance_routes import BalanceAnswer, WalletAnswer, balance_router
from streams.cli.balance import show
from streams.kafka.balances import BalanceReader, balance_document
from streams.settings import Settings
from tests.model.memory import FixedSchemas

AMOUNTS = ("settled", "held", "available", "allocation", "month_spent", "lifetime_added", "lifetime_spent")


def balance(**on_the_way: int) -> dict[str, Any]:
    """A balance record with a wallet for each unit: what is on the way of it, in nano-units."""
    amounts = {f"{name}_nanos": 5 * 10**9 for name in AMOUNTS}
    words = {"status": "ok", "health": "green"}
    wallets = [{"unit": unit, **amounts, **words, "on_the_way_nanos": nanos} for unit, nanos in on_the_way.items()]
    return {"org_id": "acme", "seq": 7, "as_of": 1_780_000_000_000_000, "wallets": wallets}


def test_the_document_says_what_is_on_the_way() -> None:
    document = balance_document(balance(EUR=0, USD=1_500_000_001))
    assert [(each["unit"], each["settled"], each["on_the_way"]) for each in document["wallets"]] == [
        ("EUR", "5", "0"),
        ("USD", "5", "1.500000001"),
    ]


def test_openapi_has_the_words_of_the_document() -> None:
    document = balance_document(balance(USD=1))
    BalanceAnswer.model_validate(document)
    assert list(BalanceAnswer.model_fields) == list(document)
    assert list(WalletAnswer.model_fields) == list(document["wallets"][0])
    api = FastAPI()
    api.include_router(balance_router(BalanceReader(Settings(_env_file=None), FixedSchemas())))
    openapi = api.openapi()
    answer = openapi["paths"]["/v1/orgs/{org}/balance"]["get"]["responses"]["200"]["content"]["application/json"]
    assert answer["schema"] == {"$ref": "#/components/schemas/BalanceAnswer"}
    assert (
        "not part of settled"
        in openapi["components"]["schemas"]["WalletAnswer"]["properties"]["on_the_way"]["description"]
    )


def test_the_table_has_a_column_where_something_is_on_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    show(balance_document(balance(EUR=0, USD=2 * 10**9)))
    _, head, *lines = capsys.readouterr().out.splitlines()
    assert "held  available  in transit  month spent" in head
    assert [line.split()[4] for line in lines] == ["0", "2"]
    show(balance_document(balance(EUR=0, USD=0)))
    _, head, *lines = capsys.readouterr().out.splitlines()
    assert "in transit" not in head
    assert [len(line.split()) for line in lines] == [9, 9]
