"""Tables at any width: every number whole, nothing cut, and as much of the table kept as there is room for."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from fusion.runtime.console_table import ConsoleTable

NUMBERS = ["-0.123", "1,234,567", "15.5 (11.1 to 21.2)★", "∞", "12.3 GB"]


def drawn(table: ConsoleTable, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    return console.file.getvalue()


def numbers_table() -> ConsoleTable:
    table = ConsoleTable("model", title="A title", caption="A caption")
    for head in ("difference", "tokens read", "exact match of lists", "gap", "memory"):
        table.add_column(head, justify="right")
    table.add_row(Text("SmolLM2-135M-Instruct", style="bold"), *NUMBERS)
    table.add_section()
    table.add_row("all", *NUMBERS)
    return table


@pytest.mark.parametrize("width", [24, 33, 40, 60, 80, 100, 200])
def test_every_number_is_whole_and_no_line_too_long_at_any_width(width):
    text = drawn(numbers_table(), width)
    assert "…" not in text
    words = text.replace("│", " ").replace("┃", " ").split()
    for number in " ".join(NUMBERS).split():
        assert words.count(number) == 2
    assert max(map(len, text.splitlines())) <= width


def test_with_room_a_table_is_as_wide_as_its_cells_and_has_a_frame():
    lines = drawn(numbers_table(), 200).splitlines()
    assert any("│ 15.5 (11.1 to 21.2)★ │" in line for line in lines)
    assert any("━" in line for line in lines)


def test_with_less_room_an_interval_goes_below_its_value_before_a_number_is_broken():
    lines = drawn(numbers_table(), 82).splitlines()
    assert any("15.5" in line and "(11.1" not in line for line in lines)
    assert any("(11.1 to 21.2)★" in line for line in lines)


def test_without_room_for_a_table_each_value_is_on_a_line_with_its_column():
    lines = drawn(numbers_table(), 24).splitlines()
    assert "  difference: -0.123" in lines
    assert lines[0].strip() == "A title"
    assert lines[-1].strip() == "A caption"


def test_a_table_drawn_narrow_is_drawn_whole_again():
    table = numbers_table()
    before = drawn(table, 200)
    drawn(table, 24)
    assert drawn(table, 200) == before


def test_cells_are_markup_where_they_are_strings_and_plain_where_they_are_texts():
    table = ConsoleTable("a", "b")
    table.add_row("[bold]x[/]", Text("[bold]y[/]"))
    assert "[bold]y[/]" in drawn(table, 40)
    assert "[bold]x" not in drawn(table, 40)
