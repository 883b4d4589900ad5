import sys
from importlib.metadata import EntryPoint, entry_points, version

import pytest
import typer

from maskdecay import _cli

PLUGIN = """
import typer
app = typer.Typer()
@app.command()
def greet(name: str, loud: bool = False):
    if name == "stop": raise KeyboardInterrupt
    if name == "fail": raise typer.Exit(3)
    typer.echo(name.upper() if loud else name)
group = typer.Typer()
@group.command()
def one(): typer.echo("1")
@group.command()
def two(): typer.echo("2")
odd = 3
"""


@pytest.fixture(autouse=True)
def plugins(tmp_path, monkeypatch):
    (tmp_path / "toyplugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    values = {
        "greet": "toyplugin:app",
        "count": "toyplugin:group",
        "odd": "toyplugin:odd",
        "gone": "not_there:app",
        "profile": "maskdecay.profiling.cli:app",
    }
    found = [EntryPoint(name, value, _cli.COMMANDS_GROUP) for name, value in values.items()]
    monkeypatch.setattr(_cli, "entry_points", lambda group: found)
    yield
    sys.modules.pop("toyplugin", None)


def test_a_single_command_is_mounted_under_its_entry_points_name(capsys):
    assert _cli.main(["greet", "ann", "--loud"]) == 0
    assert capsys.readouterr().out == "ANN\n"


def test_a_group_keeps_its_commands(capsys):
    assert _cli.main(["count", "two"]) == 0
    assert capsys.readouterr().out == "2\n"


def test_help_lists_commands_without_importing_them(capsys):
    assert _cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("greet", "count", "gone"))
    assert "toyplugin" not in sys.modules


def test_no_words_show_the_help(capsys):
    assert _cli.main([]) == 0
    assert "Commands" in capsys.readouterr().out


def test_help_after_a_command_is_the_commands_own(capsys):
    assert _cli.main(["greet", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "maskdecay greet" in shown
    assert "--loud" in shown


def test_version(capsys):
    assert _cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("maskdecay")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["gone"], "maskdecay gone: not_there:app cannot be loaded: No module named 'not_there'"),
        (["odd"], "maskdecay odd: toyplugin:odd is a int, no typer app"),
        (["greet"], "maskdecay greet: Missing argument 'name' (see maskdecay greet --help)"),
        (["greet", "a", "--wrong"], "maskdecay greet: No such option: --wrong (see maskdecay greet --help)"),
        (["nope"], "maskdecay: No such command 'nope' (see maskdecay --help)"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(words, line, capsys):
    assert _cli.main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.lower() == line.lower() + "\n"  # versions of typer write NAME or name


def test_a_commands_exit_status_is_passed_on():
    assert _cli.main(["greet", "fail"]) == 3


def test_an_interrupt_ends_quietly(capsys):
    assert _cli.main(["greet", "stop"]) == 130
    assert capsys.readouterr().err.strip() == ""


def test_gathered_apps_are_typer_apps():
    assert isinstance(_cli.gather(), typer.Typer)
    assert [command.name for command in _cli.gather().registered_commands] == [
        "count",
        "gone",
        "greet",
        "odd",
        "profile",
    ]


def test_profiling_is_reached_through_the_command(capsys):
    assert _cli.main(["profile", "evc:narrow-small", "--size", "64x64", "--no-latency", "--format", "csv"]) == 0
    shown = capsys.readouterr()
    header, row = shown.out.splitlines()
    assert header.startswith("name,size,params,macs")
    assert row.startswith("evc:narrow-small,64x64,")
    assert shown.err == ""
    assert _cli.main(["profile", "evc:gigantic"]) == 2
    assert capsys.readouterr().err.startswith("maskdecay profile: target 'evc:gigantic' cannot be built: ")


def test_the_commands_of_this_package_are_installed():
    installed = {entry.name: entry.value for entry in entry_points(group=_cli.COMMANDS_GROUP)}
    assert installed["profile"] == "maskdecay.profiling.cli:app"


def test_help_describes_commands_without_importing_them_and_survives_a_missing_one(capsys, tmp_path):
    (tmp_path / "toyplugin.py").write_text('"""`maskdecay greet`: says a name.\n\nMore."""\nimport not_there_either\n')
    assert _cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "Says a name." in shown
    assert "From not_there." in shown
    assert "toyplugin" not in sys.modules
