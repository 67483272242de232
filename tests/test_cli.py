"""What all commands share: exit status, one line on standard error, help that shows the defaults."""

import importlib
import sys
import types

import pytest

from tinynst import cli
from tinynst.errors import DeviceError


def status(function, *arguments):
    """The exit status of what ends in sys.exit."""
    with pytest.raises(SystemExit) as caught:
        function(*arguments)
    return caught.value.code


def raising(error):
    def command(arguments):
        raise error

    return command


@pytest.mark.parametrize(
    "error",
    [
        cli.UserError("there is no style 'wave';\n  choose from  waves, candy"),
        DeviceError("there is no style 'wave'; choose from waves, candy"),
        FileNotFoundError("there is no style 'wave'; choose from waves, candy"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(capsys, error):
    assert status(cli.run, raising(error), "stylize", []) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "tinynst stylize: there is no style 'wave'; choose from waves, candy\n"


def test_a_missing_file_is_named(capsys, tmp_path):
    assert status(cli.run, lambda _: open(tmp_path / "none.jpg"), "stylize", []) == 2
    assert "none.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("ours"), KeyError("ours"), RuntimeError("ours")])
def test_our_own_mistakes_keep_their_traceback(error):
    with pytest.raises(type(error), match="ours"):
        cli.run(raising(error), "train", [])


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), (3, 3)])
def test_status_of_a_command(returned, code):
    seen = []
    assert (
        status(cli.run, lambda arguments: seen.append(arguments) or returned, "train", ["--out", "x"]) == code
    )
    assert seen == [["--out", "x"]]


def test_interrupted(capsys):
    assert status(cli.run, raising(KeyboardInterrupt()), "train", []) == 130
    assert capsys.readouterr().err == "tinynst train: interrupted\n"


def parser():
    made = cli.Parser(prog="tinynst paint")
    made.add_argument("images", nargs="*")
    made.add_argument("--strength", type=float, default=0.75, help="of the brush")
    made.add_argument("--colour", choices=("red", "blue"), default="red", help="of the paint")
    made.add_argument("--dry", action="store_true", help="without water")
    return made


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--strenth", "1"], "--strenth"), (["--strength", "much"], "much"), (["--colour", "green"], "green")],
)
def test_a_wrong_option_is_one_line_and_status_2(capsys, arguments, named):
    assert status(parser().parse_args, arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("tinynst paint: ")
    assert named in err
    assert "tinynst paint --help" in err


def test_help_shows_the_defaults(capsys):
    assert status(parser().parse_args, ["--help"]) == 0
    out = capsys.readouterr().out
    assert "of the brush (default: 0.75)" in out
    assert "of the paint (default: red)" in out


def test_given_are_the_options_that_were_named():
    made = parser()
    assert cli.given(made, []) == {}
    named = ["--strength", "0.75", "--dry"]  # named, though it is the default
    assert cli.given(made, named) == {"strength": 0.75, "dry": True}
    assert vars(made.parse_args([])) == {
        "images": [],
        "strength": 0.75,
        "colour": "red",
        "dry": False,
    }  # as before


def test_given_leaves_the_defaults_after_a_wrong_option():
    made = parser()
    assert status(cli.given, made, ["--colour", "green"]) == 2
    assert made.parse_args([]).strength == 0.75


# --- tinynst NAME ---


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["tinynst", *arguments])
    return status(cli.main)


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_the_list_of_commands(monkeypatch, capsys, arguments):
    assert call(monkeypatch, *arguments) == 0
    out = capsys.readouterr().out
    for name, meaning in cli.COMMANDS.items():
        assert any(line.split() == [name, *meaning.split()] for line in out.splitlines())


def test_no_such_command(monkeypatch, capsys):
    assert call(monkeypatch, "trian", "--help") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "'trian'" in err
    assert "train" in err.split("choose from")[1]


def test_a_command_gets_its_arguments_and_gives_the_status(monkeypatch):
    seen = []
    paint = types.ModuleType("tinynst.paint")
    paint.main = lambda arguments: seen.append(arguments) or 7
    monkeypatch.setitem(sys.modules, "tinynst.paint", paint)
    monkeypatch.setitem(cli.COMMANDS, "paint", "paint a photo")
    assert call(monkeypatch, "paint", "a.jpg", "--dry") == 7
    assert seen == [["a.jpg", "--dry"]]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_there_and_helps(capsys, name):
    command = importlib.import_module(f"tinynst.{name}").main
    assert status(command, ["--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: tinynst {name}")
    assert status(cli.run, command, name, ["--no-such-option"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
