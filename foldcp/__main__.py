"""The command line as a module: `python -m foldcp`, `torchrun --nproc_per_node P -m foldcp fold`."""

from foldcp.pipeline.cli import main

if __name__ == "__main__":
    main()
