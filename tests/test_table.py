"""Tables of names: resolved late, extended by registration and by entry points."""

import sys
from collections import Counter, OrderedDict
from importlib.metadata import EntryPoint, EntryPoints

import pytest

import recurlab.table
from recurlab.data import DATA
from recurlab.errors import RecurlabError
from recurlab.table import Table


@pytest.fixture
def table():
    return Table("task", {"ordered": "collections:OrderedDict", "count": Counter, "missing": "no_such_module:Thing"})


@pytest.fixture
def plugged(monkeypatch, table):
    """Return the table where other packages have entry points."""
    points = [
        EntryPoint("fraction", "fractions:Fraction", "recurlab.tasks"),
        EntryPoint("count", "decimal:Decimal", "recurlab.tasks"),
        EntryPoint("broken", "no_such_module:Thing", "recurlab.tasks"),
        EntryPoint("chain", "itertools:chain", "recurlab.others"),
    ]
    monkeypatch.setattr(recurlab.table, "installed", lambda: EntryPoints(points))
    return table


def test_a_name_gives_the_object_behind_it(table):
    assert table["ordered"] is OrderedDict
    assert table["ordered"] is OrderedDict  # and again once resolved
    assert table["count"] is Counter


def test_nothing_is_imported_until_a_name_is_looked_up(monkeypatch):
    table = Table("color", {"hsv": "colorsys:rgb_to_hsv"})
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    assert "hsv" in table
    table.check("color", "hsv")
    assert list(table) == ["hsv"]
    assert "colorsys" not in sys.modules
    assert callable(table["hsv"])
    assert "colorsys" in sys.modules


def test_names_are_listed_in_order(table):
    assert list(table) == ["count", "missing", "ordered"]
    assert len(table) == 3


def test_an_unknown_name_is_answered_with_the_nearest(table):
    wanted = r"task='orderd': allowed are count, missing, ordered; did you mean 'ordered'\?"
    with pytest.raises(RecurlabError, match=wanted):
        table["orderd"]
    with pytest.raises(RecurlabError, match=wanted.replace("task", "task.name")):
        table.check("task.name", "orderd")
    assert "orderd" not in table


def test_a_module_that_is_not_there_is_an_import_error(table):
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        table["missing"]


def test_registering_enters_a_name_and_returns_the_object(table):
    @table.register("mine")
    class Mine:
        pass

    assert table["mine"] is Mine
    assert "mine" in table
    assert list(table) == ["count", "mine", "missing", "ordered"]


@pytest.mark.parametrize("name", ["count", "ordered"])
def test_a_taken_name_cannot_be_registered(table, name):
    before = table[name] if name == "count" else None
    with pytest.raises(RecurlabError, match=f"task='{name}': this name is taken, choose another"):

        @table.register(name)
        class Mine:
            pass

    assert table[name] is (before or OrderedDict)


def test_a_class_of_the_same_name_from_elsewhere_is_another_class(table):
    def define(module):
        return type("Mine", (), {"__module__": module})

    table.register("mine")(define("here"))
    again = table.register("mine")(define("here"))  # the same definition, run twice
    assert table["mine"] is again
    with pytest.raises(RecurlabError, match="taken"):
        table.register("mine")(define("there"))
    assert table["mine"] is again


@pytest.mark.parametrize("name", ["with-dash", "1st", "", "two words", None])
def test_a_name_must_be_an_identifier(table, name):
    with pytest.raises(RecurlabError, match="must be an identifier, like my_task"):
        table.register(name)


def test_an_entry_point_of_the_tables_group_adds_a_name(plugged):
    from fractions import Fraction

    assert "fraction" in plugged
    assert list(plugged) == ["broken", "count", "fraction", "missing", "ordered"]
    assert plugged["fraction"] is Fraction
    assert "chain" not in plugged


def test_a_former_group_of_entry_points_still_adds_names(monkeypatch):
    points = [EntryPoint(name, "fractions:Fraction", f"recurlab.{name}") for name in ("data", "benchmarks", "cells")]
    monkeypatch.setattr(recurlab.table, "installed", lambda: EntryPoints(points))
    assert {"data", "benchmarks"} <= {*DATA}
    assert "cells" not in DATA


def test_an_entry_point_does_not_replace_a_built_in_name(plugged):
    assert plugged["count"] is Counter
    assert len(plugged) == 5


def test_an_entry_point_that_cannot_be_imported_is_named(plugged):
    wanted = "task='broken': the entry point no_such_module:Thing can't be imported: No module named 'no_such_module'"
    with pytest.raises(RecurlabError, match=wanted):
        plugged["broken"]
