"""The command line: `foldcp`, `python -m foldcp`, and `torchrun .. -m foldcp fold`."""

import signal


def main() -> None:
    """Run a command. SIGINT while its modules are imported ends the process without a traceback."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # not ignored, as in a shell's background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from foldcp.pipeline import cli

    signal.signal(signal.SIGINT, handler)
    cli.main()


if __name__ == "__main__":
    main()
