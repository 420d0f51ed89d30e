"""`credits config show`: the settings in force, and where each comes from."""

from __future__ import annotations

import os

import typer

from streams.cli.console import JsonFlag, load_settings, print_json, print_table

app = typer.Typer(help="Show the settings in force.", no_args_is_help=True)


@app.callback()
def _config() -> None:
    pass


@app.command()
def show(as_json: JsonFlag = False) -> None:
    """Every setting, its value, where it comes from and what it means. Secrets are not shown."""
    from streams.settings import shown_value

    settings = load_settings()
    rows = []
    for name, field in type(settings).model_fields.items():
        variable = f"CREDITS_{name.upper()}"
        value = getattr(settings, name)
        if variable in {key.upper() for key in os.environ}:
            origin = "environment"
        else:
            origin = ".env" if name in settings.model_fields_set else "default"
        rows.append((variable, shown_value(value), origin, field.description or ""))
    if as_json:
        print_json({row[0]: {"value": row[1], "origin": row[2], "description": row[3]} for row in rows})
        return
    print_table(
        ("variable", "value", "from", "meaning"), [(a, "–" if b is None or b == "" else b, c, d) for a, b, c, d in rows]
    )
