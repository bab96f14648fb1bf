"""A child process that answers questions, one line of JSON each."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from slimjax.errors import RunError, UserError


class Worker:
    """`python -m module`, started at the first question; a context manager.

    A child that takes too long is killed, one that has died is started again by the next question; each new
    child is greeted with `greeting` first.

    Args:
      module: its main loop reads a line of JSON from stdin, and writes one to stdout.
      greeting: the first question; its answer is `self.hello`.
    """

    def __init__(self, module: str, greeting: Any) -> None:
        self._module, self._greeting = module, greeting
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__
        self.hello: dict[str, Any] = {}

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._errors.close()

    def ask(self, question: Any, timeout_seconds: float | None = None) -> dict[str, Any]:
        """The answer.

          Raises:
            TimeoutError: none came in time; the child is killed.
            UserError, RunError: what the child says of a mistake of the user's, or of a failure of its own.
        RunError: the child died; the message has the end of what it wrote to stderr.
        """
        self.start(timeout_seconds)
        return self._exchange(question, timeout_seconds)

    def start(self, timeout_seconds: float | None = None) -> None:
        """Starts and greets the child, if there is none."""
        if self._process is None or self._process.poll() is not None:
            self._stop()
            self._answers = queue.Queue()
            self._errors.seek(0)
            self._errors.truncate()
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
            threading.Thread(target=self._listen, args=(self._process, self._answers), daemon=True).start()
            self.hello = self._exchange(self._greeting, timeout_seconds)

    def _exchange(self, question: Any, timeout_seconds: float | None) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = self._answers.get(timeout=timeout_seconds)
        except BrokenPipeError:
            line = ""
        except queue.Empty as error:
            self._stop()
            raise TimeoutError(f"no answer within {timeout_seconds:g} s") from error
        if not line:
            code = process.wait()
            raise RunError(f"{self._module} ended with exit code {code}: {self._said()}")
        answer = dict(json.loads(line))
        if "error" in answer:
            raise (UserError if answer.get("mistake") else RunError)(answer["error"])
        return answer

    def _said(self) -> str:
        self._errors.seek(0)
        return "\n".join(self._errors.read().strip().splitlines()[-5:]) or "no message"

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None

    @staticmethod
    def _listen(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
        """Lines as they come, then an empty one."""
        assert process.stdout is not None
        try:
            for line in process.stdout:
                answers.put(line)
        except ValueError:  # closed while it was read
            pass
        answers.put("")


def serve(begin: Callable[[Any], tuple[dict[str, Any], Callable[[Any], dict[str, Any]]]]) -> None:
    """The child's main loop. `begin` turns the greeting into (its answer, the function that answers the rest)."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    answer: Callable[[Any], dict[str, Any]] | None = None
    for line in sys.stdin:
        try:
            if answer is None:
                result, answer = begin(json.loads(line))
            else:
                result = answer(json.loads(line))
        except UserError as error:
            result = {"error": str(error), "mistake": True}
        except Exception as error:  # whatever it is, the parent decides
            result = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(result) + "\n")
        answers.flush()
