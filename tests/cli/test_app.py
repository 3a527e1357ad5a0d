"""The application: version, help that teaches, errors in one line, extras."""

import subprocess
import sys

import pytest

from jaxinf import __version__, cli
from jaxinf.cli import devices
from jaxinf.errors import InputError

COMMANDS = ("demo", "influence", "value", "doctor")


def test_version(call):
    result = call("--version")
    assert (result.exit_code, result.stdout) == (0, f"jaxinf {__version__}\n")


def test_help_names_every_command(call):
    result = call("--help")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_sentence_and_every_command_an_example(name):
    import typer

    from jaxinf.cli.app import app

    command = typer.main.get_command(app).commands[name]
    assert "Example" in command.epilog
    assert f"jaxinf {name}" in command.epilog
    for parameter in command.params:
        if parameter.name != "help":
            assert (parameter.help or "").endswith((".", ")")), parameter.name


def test_traceback_is_shown_on_request(call, tmp_path):
    result = call("--traceback", "influence", tmp_path / "absent.py")
    assert isinstance(result.exception, InputError)


def test_without_the_extra_one_line_names_the_command_that_installs_it():
    # a fresh process in which typer cannot be found
    script = "import sys; sys.modules['typer'] = None\nimport jaxinf.cli\njaxinf.cli.main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "jaxinf: typer is needed here: pip install 'jaxinf[cli]'\n"


def test_an_extra_missing_later_is_one_line_too(call, contract, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = call("influence", contract, "--out", tmp_path / "out", "--no-progress")
    assert result.exit_code == 1
    assert result.stderr == "jaxinf: jinja2 is needed here: pip install 'jaxinf[cli]'\n"


def test_import_touches_no_device_and_nothing_heavy():
    script = (
        "import sys, jaxinf.cli, jaxinf.report\n"
        "heavy = {'typer', 'matplotlib', 'jinja2', 'PIL', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import jaxinf.cli.app\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_one_cpu_device_per_core_unless_the_user_chose():
    script = (
        "from jaxinf.cli.devices import num_cores, use_all_cores\n"
        "use_all_cores()\n"
        "import jax; print(len(jax.devices()), num_cores())"
    )

    def count(**extra: str) -> list[str]:
        env = {"PATH": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": ":".join(sys.path), **extra}
        done = subprocess.run(
            [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    found, cores = count()
    assert found == cores == str(devices.num_cores())
    assert count(JAX_NUM_CPU_DEVICES="3")[0] == "3"
    assert count(XLA_FLAGS="--xla_force_host_platform_device_count=5")[0] == "5"


def test_main_is_the_console_script(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxinf", "--version"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert __version__ in capsys.readouterr().out
