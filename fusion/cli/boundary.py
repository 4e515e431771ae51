"""The one place where an error becomes what a user reads: a sentence about his files, or a traceback where the fault is ours.

What counts as the user's is a small rule, and no list of places: a ValueError that our own code raises with a message, whatever
the operating system refuses (OSError), memory that does not suffice, and a network that does not answer. A KeyError, or
a ValueError that comes out of a library, was foreseen by nobody; whoever reads a user's file translates those where they arise.
"""

from __future__ import annotations

import dis
import errno
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from fusion.core.secrets import hide
from fusion.runtime import distributed

OURS = {"fusion", "fusion_eval", "fusion_launch"}
"""Packages whose `raise ValueError(message)` is meant for the user."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the number of SIGINT."""
RAISE = dis.opmap["RAISE_VARARGS"]
BUG = "This is a bug of fusion, not of your files: please report it with the command and the lines above."
STOPPED = (
    "Stopped. What was finished is kept, and so is the last checkpoint of a training: run the same command again and it goes "
    "on from there."
)
MEMORY = (
    "Lower extract.batch_tokens, evaluation.batch_tokens or training.per_device_train_batch_size (with more "
    "training.gradient_accumulation_steps), take a smaller dtype, or use a machine with more memory; `fusion plan` estimates "
    "what a run needs."
)
CUT = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting")
REMOTE = "remote process exited"
"""What gloo and NCCL say when the other end is gone."""
OTHERS = "If it said why, that is in its own output, on its own machine. What was finished is kept: run the same command again."
AGAIN = "and run the same command again: what was finished is kept."
WAYS_OUT = {
    errno.ENOSPC: f"Free some space there, {AGAIN}",
    errno.EDQUOT: f"Free some of your quota there, {AGAIN}",
    errno.EFBIG: f"Raise the limit on the size of files there (ulimit -f), {AGAIN}",
    errno.EACCES: "Give yourself the right to it, or name another place.",
    errno.EPERM: "Give yourself the right to it, or name another place.",
    errno.EROFS: "Name a place that can be written to.",
    errno.EISDIR: "A folder is there where a file is meant: name a file.",
    errno.ENOTDIR: "A file is there where a folder is meant: name another place, or move the file away.",
    errno.ENAMETOOLONG: "Give a shorter name.",
    errno.ENOENT: "Check the path.",
    errno.EMFILE: f"Raise the number of files that may be open (ulimit -n), {AGAIN}",
}


class Commands(TyperGroup):
    """All commands; what typer would end without a word, or as if the user had stopped it, gets its own."""

    @override
    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            release_terminal()
            typer.secho(STOPPED, fg="yellow", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except EOFError as error:  # of a library, which typer takes for a user who ended the input
            raise RuntimeError(f"the end of a file or stream came too early: {error}") from error


def tell(error: Exception, *, with_traceback: bool = False) -> None:
    """Print a sentence for what a user can mend, and all there is to know of anything else; secrets are masked in both."""
    release_terminal()
    place = "" if distributed.is_main_process() else f" in process {distributed.rank()}"
    message = user_message(error)
    if message is None or with_traceback:
        typer.echo(printable(hide("".join(traceback.format_exception(error)))), err=True, nl=False)
    if message is not None:
        typer.secho(f"Error{place}: {printable(hide(message))}", fg="red", err=True)
        return
    typer.secho(f"Error{place}: {BUG}", fg="red", err=True)


def tell_of_thread(arguments: threading.ExceptHookArgs) -> None:
    """Print a sentence where the system refuses something to a thread of a library, such as TensorBoard's writer."""
    if not isinstance(arguments.exc_value, OSError):
        threading.__excepthook__(arguments)
        return
    typer.secho(
        f"What is written in the background, such as logs, ends here: {arguments.exc_value}.", fg="yellow", err=True
    )


def user_message(error: BaseException) -> str | None:
    """Return what to tell a user whose file, disk, server, memory or network caused the error; None for a bug of ours."""
    text = str(error).strip()
    if isinstance(error, OSError) and error.errno is not None and error.strerror is not None:
        return _system_message(error)
    if isinstance(error, (ValueError, OSError)) and text and _raised_by_us(error.__traceback__):
        return text
    if isinstance(error, OSError):  # of a library, such as the hub's
        return f"{_first_line(error)} Check the path, the network or the right to read it, {AGAIN}"
    if _lost_others(error):
        what = _first_line(error).split(". ")[0].rstrip(".")  # behind it gloo gives advice
        return f"Another process of this run ended or cannot be reached: {what}. {OTHERS}"
    if _lacks_memory(error):
        return f"The memory does not suffice: {_first_line(error)} {MEMORY}"
    if any(base.__module__.startswith("httpx") for base in type(error).__mro__):  # of the hub; no OSError
        return f"The network failed: {_first_line(error)} Try again, or point to a local folder."
    return None


def release_terminal() -> None:
    """End the progress bars that an error left open, which hide the cursor."""
    if (module := sys.modules.get("fusion.runtime.console")) is not None:
        module.end_bars()


def _raised_by_us(trace: TracebackType | None) -> bool:
    """Whether the last line that ran is a `raise` of our own, rather than a call or an operator that failed."""
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    frame = trace.tb_frame
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    return package in OURS and frame.f_code.co_code[trace.tb_lasti] == RAISE


def _system_message(error: OSError) -> str:
    place = error.filename2 or error.filename
    named = f"{place}: " if isinstance(place, (str, bytes)) or hasattr(place, "__fspath__") else ""
    return f"{named}{error.strerror}. {WAYS_OUT.get(error.errno or 0, f'Mend what stands in the way, {AGAIN}')}"


def _lacks_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def _lost_others(error: BaseException) -> bool:
    """Whether processes that compute together have lost one another: the fault, if it is one, is told by the other."""
    torch = sys.modules.get("torch")
    if not isinstance(error, RuntimeError) or torch is None:
        return False
    network = tuple(getattr(torch.distributed, name, ()) for name in ("DistNetworkError", "DistStoreError"))
    text = str(error)
    return isinstance(error, network) or ("gloo" in text and any(what in text for what in CUT)) or REMOTE in text


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0] if lines[0].endswith((".", "!", "?")) else f"{lines[0]}."


def printable(text: str) -> str:
    """Control characters of a file are shown, not sent to the terminal; what no encoding has is shown too."""
    shown = "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown.encode("utf-8", "backslashreplace").decode()
