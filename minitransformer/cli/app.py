"""The program around the commands: global options, messages, errors, exit status.

Exit status: 0 success; 1 failure, with one line on standard error; 2 bad usage; 130 Ctrl-C.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import ConfigError, MiniTransformerError, printable
from ..formats.files import json_text

INTERRUPTED = 130  # as shells count it: 128 + SIGINT

# Whatever is wrong with a command line; click's class, or typer's own copy of it.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="minitransformer",
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with `minitransformer demo`: 20 seconds, no network.",
)

# The groups of commands in --help, in the order in which their first command is registered.
BEGIN, USE, STUDY, TEACH = (
    "Begin",
    "Train, and use what was trained",
    "Count, check, sweep",
    "Teach",
)


def say(message: str) -> None:
    """To the person in front of the screen, not to the program behind a pipe."""
    print(printable(message), file=sys.stderr, flush=True)


def show(text: object) -> None:
    """A result, to standard output; what is in files of others cannot steer the terminal."""
    print(printable(text))


class SayHandler(logging.Handler):
    """Shows what the library logs."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


@contextmanager
def shown_messages() -> Iterator[None]:
    """While inside, what the library logs and warns of goes to standard error, as messages."""
    logger, handler = logging.getLogger("minitransformer"), SayHandler()
    level, of_warnings = logger.level, warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {printable(message)}\n"
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        warnings.formatwarning = of_warnings


def print_json(value: Any) -> None:
    print(json_text(value, indent=2))


def show_version(wanted: bool) -> None:
    if wanted:
        print(f"minitransformer {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options_of_all(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="On failure, show the traceback. Goes anywhere.")
    ] = False,
) -> None:
    """Adapter-based fine-tuning of transformers, in NumPy, every gradient by hand.

    A pretrained transformer is frozen; small trainable modules (adapters) are put into it and
    learn a task; the file that holds them is all that the task needs beside the base.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


# -- the exit -----------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    end = typed.index("--") if "--" in typed else len(typed)  # beyond it everything is text
    debug = "--debug" in typed[:end]
    typed = [word for word in typed[:end] if word != "--debug"] + typed[end:]
    speak_utf8()
    try:
        with shown_messages():
            status = app(typed, prog_name="minitransformer", standalone_mode=False) or 0
        sys.stdout.flush()
        return int(status)
    except UsageError as error:
        return failed(usage(error), 2)
    except ConfigError as error:
        return failed(one_line(error), 2, debug)
    except BrokenPipeError:  # whoever read our output has left: go quietly
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return failed("interrupted", INTERRUPTED)
    except MiniTransformerError as error:
        return failed(one_line(error), 1, debug)
    except OSError as error:
        return failed(system_failure(error), 1, debug)
    except Exception as error:
        return failed(f"{type(error).__name__}: {one_line(error)}", 1, debug)


def speak_utf8() -> None:
    """UTF-8 in and out, whatever the locale; streams that a test has replaced stay as they are."""
    streams: list[tuple[Any, str]] = [(sys.stdin, "strict")]
    streams += [(sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace")]
    for stream, errors in streams:
        with suppress(AttributeError, ValueError):
            stream.reconfigure(encoding="utf-8", errors=errors)


def failed(message: str, status: int, debug: bool = False) -> int:
    if debug:
        say(traceback.format_exc())
    say(f"minitransformer: error: {message}")
    return status


def system_failure(error: OSError) -> str:
    """What the system refused, and advice."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "; make room on the disk, and run it again" if full else ""
    return f"{str(error.filename or '')[:200]}: {error.strerror or error}{advice}".removeprefix(
        ": "
    )


def usage(error: Any) -> str:
    command = error.ctx.command_path if error.ctx else "minitransformer"
    return f"{error.format_message().rstrip('.')}; see {command} --help"


def one_line(error: Exception) -> str:
    """The message; of a list of many wrong things, the first three."""
    first, *others = (line.strip() for line in str(error).splitlines() or [""])
    shown = "; ".join(others[:3])
    rest = f"; and {len(others) - 3} more (--debug shows them)" if len(others) > 3 else ""
    return f"{first} {shown}{rest}".strip()
