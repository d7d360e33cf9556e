"""The command line: `foldcp`, `python -m foldcp`, and `torchrun .. -m foldcp fold`."""

import signal


def main() -> None:
    """Run a command. SIGINT while its modules are imported ends the process without a traceback."""
    # It may be ignored, as in a shell's background, or belong to a profiler.
    is_python = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_python:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from foldcp.pipeline import cli

    if is_python:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


if __name__ == "__main__":
    main()
