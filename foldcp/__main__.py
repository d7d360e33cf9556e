"""The command line as a module: `python -m foldcp`, and `torchrun .. -m foldcp fold`."""

from foldcp.pipeline.cli import main

if __name__ == "__main__":
    main()
