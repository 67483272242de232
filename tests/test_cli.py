"""Shared by all commands: exit statuses, one line on standard error, help that shows the defaults."""

import importlib
import subprocess
import sys
import types

import pytest

from tinynst import __version__, cli
from tinynst.errors import DeviceError


def status(function, *arguments):
    with pytest.raises(SystemExit) as caught:
        function(*arguments)
    return caught.value.code


def raising(error):
    def command(arguments):
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            cli.UserError("a\n\x1b[2J\udcff.png: no such file"),  # what a file's name can hold
            2,
            r"a\n\x1b[2J\udcff.png: no such file",
        ),
        (DeviceError("no GPU"), 2, "no GPU"),
        (FileNotFoundError("no wave.jpg"), 2, "no wave.jpg"),
        (MemoryError("9 GB"), 2, "not enough memory (9 GB): try smaller sizes, batches or widths"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_error_of_the_user_is_one_line(capsys, error, code, message):
    assert status(cli.run, raising(error), "stylize", []) == code
    assert capsys.readouterr() == ("", f"tinynst stylize: {message}\n")


CODE = """if True:
    import sys; from tinynst import cli
    def command(arguments):
        for k in range(20000):
            print("line", k, "\\x1b[2J"); print("error", k, file=sys.stderr)
        open(arguments[0], "w").write("done")
    cli.run(command, "train", sys.argv[1:])"""


@pytest.mark.parametrize(
    ("shell", "status", "lines"),
    [
        ("{} | head -1", 0, [r"line 0 \x1b[2J"]),
        ("{} 2>&1 | head -1", 0, None),
        ("{} >&-", 0, []),
        ("{} >&- 2>&-", 0, []),
        ("{} >/dev/full", 2, []),
    ],
)
def test_the_work_goes_on_when_nobody_reads_what_is_printed(tmp_path, shell, status, lines):
    call = shell.format(f"{sys.executable} -c '{CODE}' {tmp_path}/result")
    done = subprocess.run(["bash", "-o", "pipefail", "-c", call], capture_output=True, text=True)
    assert done.returncode == status and lines in (None, done.stdout.splitlines())
    assert (tmp_path / "result").read_text() == "done" and "Traceback" not in done.stderr
    assert status == 0 or done.stderr.endswith("tinynst train: standard output: No space left on device\n")


@pytest.mark.parametrize("error", [ValueError("ours"), KeyError("ours"), RuntimeError("ours")])
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error), match="ours"):
        cli.run(raising(error), "train", [])


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_status_of_a_command(returned, code):
    assert status(cli.run, lambda arguments: returned, "train", ["--out", "x"]) == code


def parser():
    made = cli.Parser(prog="tinynst paint")
    made.add_argument("--strength", type=float, default=0.75, help="of the brush")
    made.add_argument("--side", type=int, default=3, help="of the picture")
    made.add_argument("--color", choices=("red", "blue"), default="red", help="of the paint")
    return made


@pytest.mark.parametrize(
    "wrong", [["--strenth", "1"], ["--strength", "much"], ["--color", "green"], ["--side", "9" * 20]]
)
def test_a_wrong_option_is_one_line_and_status_2(capsys, wrong):
    assert status(parser().parse_args, wrong) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("tinynst paint: ")
    assert wrong[0] in err
    assert "tinynst paint --help" in err


def test_help_shows_the_defaults(capsys):
    assert status(parser().parse_args, ["--help"]) == 0
    out = capsys.readouterr().out
    assert "of the brush (default: 0.75)" in out
    assert "of the paint (default: red)" in out


def test_given_are_the_options_that_were_named():
    made = parser()
    assert cli.given(made, ["--strength", "0.75"]) == {"strength": 0.75}  # named, though it is the default
    assert status(cli.given, made, ["--color", "green"]) == 2
    assert vars(made.parse_args([])) == {"strength": 0.75, "side": 3, "color": "red"}  # as before


def test_commands_are_listed_and_called(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["tinynst", *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return end.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    for arguments in ([], ["-h"], ["--help"]):
        code, out, _ = call(*arguments)
        assert code == 0
        assert all(f"  {name:14} {meaning}\n" in out for name, meaning in cli.COMMANDS.items())
    assert call("--version") == (0, f"tinynst {__version__}\n", "")
    code, out, err = call("trian", "--help")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "'trian'; choose from train" in err
    paint = types.ModuleType("tinynst.paint")
    paint.main = lambda arguments: print(arguments) or 7
    monkeypatch.setitem(sys.modules, "tinynst.paint", paint)
    monkeypatch.setitem(cli.COMMANDS, "paint", "paint a photo")
    assert call("paint", "a.jpg", "--dry") == (7, "['a.jpg', '--dry']\n", "")


def test_python_m_tinynst(capfd):
    subprocess.run([sys.executable, "-m", "tinynst", "--version"], check=True, timeout=60)
    assert capfd.readouterr().out == f"tinynst {__version__}\n"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(capsys, name):
    command = importlib.import_module(f"tinynst.{name}").main
    assert status(command, ["--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: tinynst {name}")
    assert status(cli.run, command, name, ["--no-such-option"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
