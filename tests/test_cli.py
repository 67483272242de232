"""Shared by all commands: exit statuses, one line on standard error, help that shows the defaults."""

import dataclasses
import importlib
import subprocess
import sys
import types

import pytest

from tinynst import __version__, cli
from tinynst.errors import DeviceError, UserError
from tinynst.settings import Settings, option


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


@dataclasses.dataclass(init=False)
class Paint(Settings):
    images: list[str] = option(None, "photos", flags=("images",))
    strength: float = option(0.75, "of the brush", least=0, most=1)
    side: int = option(3, "of the picture")
    color: str = option("red", "of the paint", choices=("red", "blue"))


def paint(*arguments):
    return Paint.parse(arguments, "paint", "Paint.")


@pytest.mark.parametrize(
    "wrong", [["--strenth", "1"], ["--strength", "much"], ["--color", "green"], ["--side", "9" * 20], []]
)
def test_a_wrong_option_is_one_line_and_status_2(capsys, wrong):
    assert status(paint, *["a.jpg"] * bool(wrong), *wrong) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("tinynst paint: ")
    assert (wrong or ["images"])[0] in err
    assert "tinynst paint --help" in err


def test_options_of_settings_their_defaults_and_which_were_given(capsys):
    assert status(paint, "--help") == 0
    out = capsys.readouterr().out
    assert "of the brush (default: 0.75)" in out and "of the paint (default: red)" in out
    s = paint("a.jpg", "b.jpg", "--strength", "0.75")
    assert s.to_dict() == {"images": ["a.jpg", "b.jpg"], "strength": 0.75, "side": 3, "color": "red"}
    assert s.given == {"images", "strength"}  # named, though it is the default
    for wrong, message in (
        (["--strength", "2"], "--strength is 2; it should be between 0 and 1"),
        ([""], "images is"),
    ):
        with pytest.raises(UserError, match=message):
            paint("a.jpg", *wrong)


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
